//! The absolute budgets, as the baseline file states them: section 9 of the
//! behaviour contract, and the timings of section 5.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// The most that figures may be, each in its own unit, by flavour and name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Budgets(BTreeMap<String, BTreeMap<String, f64>>);

impl Budgets {
    /// An object of flavours, in each an object of figures.
    ///
    /// # Errors
    /// Names what is no number.
    pub fn from_json(json: &Json) -> Result<Budgets, String> {
        let mut budgets = Budgets::default();
        for (flavour, figures) in json.as_object().into_iter().flatten() {
            let figures = figures.as_object().ok_or("budgets: not an object")?;
            for (figure, most) in figures {
                let most = most.as_f64().ok_or(format!("budget of {figure}: {most}"))?;
                let of_flavour = budgets.0.entry(flavour.clone()).or_default();
                of_flavour.insert(figure.clone(), most);
            }
        }
        Ok(budgets)
    }

    pub fn of(&self, flavour: &str, figure: &str) -> Option<f64> {
        self.0.get(flavour)?.get(figure).copied()
    }
}

/// Whether a budget is a promise about the agent alone, not about the machine's
/// speed: only such are gated.
pub fn is_gated(figure: &str) -> bool {
    ["size/", "memory/", "process/threads"]
        .iter()
        .any(|gated| figure.starts_with(gated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flavour::{DEFAULT, MINIMAL};

    #[test]
    fn the_committed_budgets_are_those_of_section_9() {
        let committed = include_str!("../baseline.json");
        let committed: Json = serde_json::from_str(committed).unwrap();
        let budgets = Budgets::from_json(&committed["budgets"]).unwrap();
        assert_eq!(budgets.of(DEFAULT, "size/total"), Some(2_097_152.0));
        assert_eq!(budgets.of(MINIMAL, "size/total"), Some(1_048_576.0));
        let table = [
            ("memory/idle: RSS", 3072.0),
            ("memory/idle: anonymous", 256.0),
            ("memory/standby: RSS", 3072.0),
            ("memory/standby: anonymous", 256.0),
            ("memory/standby after a life: RSS", 3072.0),
            ("memory/standby after a life: anonymous", 256.0),
            ("memory/64 in flight: VmHWM", 4096.0),
            ("memory/backlog of 100,000, replayed: VmHWM", 4096.0),
            ("memory/backlog of 1,000,000, replayed: VmHWM", 4096.0),
            ("memory/24 × 3.9 MB: VmHWM", 32768.0),
            ("process/threads", 1.0),
        ];
        for flavour in [DEFAULT, MINIMAL] {
            for (figure, most) in table {
                assert_eq!(
                    budgets.of(flavour, figure),
                    Some(most),
                    "{flavour} {figure}"
                );
            }
        }
        assert_eq!(budgets.of(DEFAULT, "size/.text"), None);
    }

    #[test]
    fn a_budget_that_is_no_number_is_named() {
        let json = serde_json::json!({"default": {"size/total": "small"}});
        let why = Budgets::from_json(&json).unwrap_err();
        assert_eq!(why, "budget of size/total: \"small\"");
    }

    #[test]
    fn what_depends_on_the_machine_is_not_gated() {
        for (figure, gated) in [
            ("size/total", true),
            ("memory/idle: RSS", true),
            ("process/threads", true),
            ("process/wake-ups a second", false),
            ("start/socket", false),
            ("speed/ingest", false),
        ] {
            assert_eq!(is_gated(figure), gated, "{figure}");
        }
    }
}
