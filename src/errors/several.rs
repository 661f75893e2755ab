//! Several problems that are reported together, so that nobody repairs them one run at a time.

use std::error::Error;
use std::fmt;

use super::render;

/// Problems that do not follow from each other; at least two.
#[derive(Debug)]
struct Several(Vec<anyhow::Error>);

impl fmt::Display for Several {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(render).collect();
        out.write_str(&texts.join("\n"))
    }
}

impl Error for Several {}

/// One error of all `problems`, of which there is at least one.
pub fn together(mut problems: Vec<anyhow::Error>) -> anyhow::Error {
    if problems.len() == 1 { problems.remove(0) } else { Several(problems).into() }
}

/// The value, or nothing and one more of the `problems`.
pub fn kept<T>(result: anyhow::Result<T>, problems: &mut Vec<anyhow::Error>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}
