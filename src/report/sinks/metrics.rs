//! `metrics.jsonl`: one JSON object per line for each step and each evaluation.

use anyhow::Result;
use serde_json::{Value, json};

use super::append::AppendFile;
use super::{Measurement, Sink, SinkKind, SinkPosition, StepRecord};
use crate::run_dir::METRICS;
use crate::train::Evaluation;

pub(super) const METRICS_JSONL: SinkKind = SinkKind {
    key: "metrics_bytes",
    file: Some(METRICS),
    wanted: |_| true,
    open: |opening| Ok(Box::new(Metrics(AppendFile::open(opening, METRICS)?))),
};

#[derive(Debug)]
struct Metrics(AppendFile);

impl Sink for Metrics {
    fn step(&mut self, record: &StepRecord) -> Result<()> {
        self.0.line(&step_line(record).to_string())
    }

    fn evaluation(&mut self, step: usize, evaluation: &Evaluation) -> Result<()> {
        let mut line = json!({ "step": step });
        add_evaluation(&mut line, evaluation);
        self.0.line(&line.to_string())
    }

    fn measured(&mut self, measurement: &Measurement) -> Result<()> {
        let Measurement { moment, step, evaluation, exact_match } = *measurement;
        if evaluation.is_none() && exact_match.is_none() {
            return Ok(());
        }
        let mut line = json!({ "step": step, "measured": moment });
        if let Some(evaluation) = evaluation {
            add_evaluation(&mut line, evaluation);
        }
        if let Some((share, prompts)) = exact_match {
            line["exact_match"] = json!(share);
            line["prompts"] = json!(prompts);
        }
        self.0.line(&line.to_string())
    }

    fn event(&mut self, _step: usize, _text: &str) -> Result<()> {
        // The file holds figures alone.
        Ok(())
    }

    fn position(&mut self) -> Result<Option<SinkPosition>> {
        self.0.position()
    }
}

fn add_evaluation(line: &mut Value, evaluation: &Evaluation) {
    line["eval_loss"] = json!(evaluation.loss);
    line["eval_tokens"] = json!(evaluation.tokens);
    for (name, value) in &evaluation.metrics {
        line[format!("eval_{name}")] = json!(value);
    }
}

fn step_line(record: &StepRecord) -> Value {
    let step = record.step;
    let mut line = json!({
        "step": step.step,
        "epoch": step.epoch,
        "loss": step.loss,
        "learning_rate": step.learning_rate,
        "gradient_norm": step.gradient_norm,
        "skipped": step.skipped,
        "micro_batches": step.micro_batches,
        "tokens": step.tokens,
        "trained_tokens": step.trained_tokens,
        "seconds": step.seconds,
        "tokens_per_second": record.tokens_per_second,
        "memory_bytes": record.memory_bytes,
    });
    for (name, value) in &record.step.metrics {
        line[*name] = json!(value);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Trained;
    use crate::train::StepReport;

    #[test]
    fn figures_of_an_objective_stand_beside_those_of_the_step() {
        let step = StepReport { step: 3, loss: 0.5, metrics: vec![("reward_margin", 0.25)], ..StepReport::default() };
        let record =
            StepRecord { step: &step, tokens_per_second: 2.0, memory_bytes: None, trained: &Trained::default() };
        let line = step_line(&record);
        assert_eq!((&line["step"], &line["loss"], &line["reward_margin"]), (&json!(3), &json!(0.5), &json!(0.25)));
        assert!(line["memory_bytes"].is_null());
    }
}
