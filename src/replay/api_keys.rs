//! Which key a record goes out with (spec 6, "A key that is no longer valid").

use std::collections::HashSet;

/// The agent's key, and the keys of earlier records that it stands in for.
pub struct ApiKeys {
    agent: String,
    /// The server takes the agent's in place of these.
    replaced: HashSet<String>,
    /// The record that goes with the agent's to find that out.
    trying: Option<u64>,
}

impl ApiKeys {
    /// With the agent's key, which may be empty; none is replaced yet.
    #[must_use]
    pub fn new(agent: String) -> ApiKeys {
        ApiKeys {
            agent,
            replaced: HashSet::new(),
            trying: None,
        }
    }

    /// The key that the record `key` goes out with: its own, else the agent's. `is_earlier`
    /// tells whether an earlier agent has left it.
    #[must_use]
    pub fn for_record<'a>(&'a self, key: u64, is_earlier: bool, own: &'a str) -> &'a str {
        let is_replaced = self.trying == Some(key) || (is_earlier && self.replaced.contains(own));
        if own.is_empty() || is_replaced {
            &self.agent
        } else {
            own
        }
    }

    /// Whether a record that gets 401 to `used` once its patience is over is to be tried with
    /// the agent's key; it is then. No record that was taken in this life ever is: a stray
    /// 401 must not move a tenant's records to another account.
    pub fn try_agents(&mut self, key: u64, is_earlier: bool, used: &str) -> bool {
        let may = is_earlier && !self.agent.is_empty() && used != self.agent;
        if may {
            self.trying = Some(key);
        }
        may
    }

    /// The record was taken; whether that has shown `own` to be replaced.
    pub fn taken(&mut self, key: u64, own: &str) -> bool {
        self.trying == Some(key) && self.replaced.insert(own.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::ApiKeys;

    #[test]
    fn a_record_goes_with_its_own_key_else_the_agents() {
        let keys = ApiKeys::new("agents".to_owned());
        for is_earlier in [false, true] {
            assert_eq!(keys.for_record(1, is_earlier, "own"), "own");
            assert_eq!(keys.for_record(1, is_earlier, ""), "agents");
        }
    }

    #[test]
    fn only_what_an_earlier_agent_left_is_tried_with_another_key() {
        for (agent, is_earlier, used, expected) in [
            ("agents", true, "own", true),
            ("agents", false, "own", false),
            // Tried already.
            ("agents", true, "agents", false),
            ("", true, "own", false),
        ] {
            let mut keys = ApiKeys::new(agent.to_owned());
            let tried = keys.try_agents(7, is_earlier, used);
            assert_eq!(tried, expected, "{agent} {is_earlier} {used}");
            let goes_with = if tried { agent } else { "own" };
            assert_eq!(keys.for_record(7, is_earlier, "own"), goes_with);
            assert_eq!(keys.for_record(8, is_earlier, "own"), "own");
        }
    }

    #[test]
    fn what_else_was_left_under_a_replaced_key_goes_so_too() {
        let mut keys = ApiKeys::new("agents".to_owned());
        assert!(!keys.taken(6, "own"));
        assert!(keys.try_agents(7, true, "own"));
        assert!(keys.taken(7, "own"));
        assert!(!keys.taken(7, "own"), "said once");
        assert_eq!(keys.for_record(8, true, "own"), "agents");
        assert_eq!(keys.for_record(9, false, "own"), "own");
        assert_eq!(keys.for_record(10, true, "another"), "another");
    }
}
