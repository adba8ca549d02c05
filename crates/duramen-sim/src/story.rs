//! A failing seed made small: less and less of its plan, as long as the same rule is broken.

use std::fmt;

use crate::oracles::Violation;
use crate::plan::Plan;
use crate::sim::play;

/// How many smaller plans are tried.
const TRIES: u32 = 300;

/// A failing plan, as small as it was found, and what happens in it.
#[derive(Debug)]
pub struct Story {
    pub plan: Plan,
    pub violation: Violation,
    pub trace: Vec<String>,
    pub tries: u32,
}

/// Tells the story of a plan that breaks a rule; none if it breaks none.
pub fn tell(plan: &Plan) -> Option<Story> {
    let rule = play(plan, false).violation?.rule;
    let mut plan = plan.clone();
    let mut tries = 0;
    'smaller: while tries < TRIES {
        for smaller in plan.smaller() {
            tries += 1;
            let found = play(&smaller, false).violation;
            if found.is_some_and(|found| found.rule == rule) {
                plan = smaller;
                continue 'smaller;
            }
            if tries >= TRIES {
                break;
            }
        }
        break;
    }
    let verdict = play(&plan, true);
    Some(Story {
        violation: verdict.violation?,
        plan,
        trace: verdict.trace,
        tries,
    })
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.plan)?;
        writeln!(f, "--")?;
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(f, "BROKEN  {}", self.violation)
    }
}
