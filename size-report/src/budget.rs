//! The absolute budgets: section 9 of the behaviour contract, and the timings of
//! section 5.

use crate::flavour::MINIMAL;

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;

/// The most that a figure may be, in its own unit.
pub fn budget(flavour: &str, figure: &str) -> Option<f64> {
    let (group, row) = figure.split_once('/')?;
    let (moment, what) = row.rsplit_once(": ").unwrap_or((row, ""));
    match (group, moment, what) {
        ("size", "total", _) if flavour == MINIMAL => Some(MIB),
        ("size", "total", _) => Some(2.0 * MIB),
        ("memory", "idle" | "standby", "RSS") => Some(3.0 * KIB),
        ("memory", "idle" | "standby", "anonymous") => Some(256.0),
        ("memory", "24 × 3.9 MB", "VmHWM") => Some(32.0 * KIB),
        ("memory", moment, "VmHWM") if moment.starts_with("64 in flight") => Some(4.0 * KIB),
        ("memory", moment, "VmHWM") if moment.starts_with("backlog") => Some(4.0 * KIB),
        ("process", "threads", _) => Some(1.0),
        ("process", "wake-ups a second", _) => Some(4.0),
        ("start", "socket", _) => Some(20.0),
        ("start", "first answer, empty store", _) => Some(50.0),
        ("start", moment, _) if moment.ends_with("after a clean end") => Some(1000.0),
        ("start", "drained to exit", _) => Some(3000.0),
        _ => None,
    }
}

/// Whether a budget is a promise about the agent alone, not about the machine's
/// speed: only such are gated.
pub fn is_gated(figure: &str) -> bool {
    ["size/total", "memory/", "process/threads"]
        .iter()
        .any(|gated| figure.starts_with(gated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flavour::DEFAULT;

    #[test]
    fn the_budgets_of_section_9() {
        let table = [
            (DEFAULT, "size/total", Some(2_097_152.0)),
            (MINIMAL, "size/total", Some(1_048_576.0)),
            (MINIMAL, "size/.text", None),
            (DEFAULT, "memory/idle: RSS", Some(3072.0)),
            (DEFAULT, "memory/standby: anonymous", Some(256.0)),
            (DEFAULT, "memory/64 in flight: VmHWM", Some(4096.0)),
            (
                DEFAULT,
                "memory/backlog of 1,000,000, replayed: VmHWM",
                Some(4096.0),
            ),
            (DEFAULT, "memory/24 × 3.9 MB: VmHWM", Some(32768.0)),
            (DEFAULT, "memory/24 × 3.9 MB: RSS", None),
            (DEFAULT, "process/threads", Some(1.0)),
            (DEFAULT, "speed/replay", None),
        ];
        for (flavour, figure, most) in table {
            assert_eq!(budget(flavour, figure), most, "{flavour} {figure}");
        }
    }

    #[test]
    fn what_depends_on_the_machine_is_not_gated() {
        for (figure, gated) in [
            ("size/total", true),
            ("size/.text", false),
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
