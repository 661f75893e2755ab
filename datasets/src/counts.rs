//! What was read and what became of it, for the plan, the preview and the report.

/// Numbers of rows and tokens; rows are those of all sources unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows read, of `datasets` and `test_datasets`.
    pub rows: usize,
    /// Examples to train on.
    pub train_rows: usize,
    /// Examples held out.
    pub held_out_rows: usize,
    /// Tokens of the examples to train on.
    pub tokens: usize,
    /// Predictions that count among them.
    pub trained_tokens: usize,
    /// Tokens of the longest example to train on.
    pub longest: usize,
    /// Rows of documents to train on; `train_rows` without packing.
    pub packed_rows: usize,
    /// Rows cut at `sequence_len`.
    pub truncated: usize,
    /// Of these, rows that lost trained tokens.
    pub truncated_answers: usize,
    /// Rows left out because they are longer than `sequence_len`.
    pub dropped: usize,
    /// Rows left out because nothing of them would be trained on.
    pub no_trained_tokens: usize,
    /// Rows with a trained turn that no end-of-turn token closes.
    pub without_end_of_turn: usize,
    /// Rows that begin with two BOS tokens.
    pub doubled_bos: usize,
    /// Rows whose trained turns the template shortened or changed (reasoning of earlier turns ...).
    pub altered: usize,
    /// Plain texts longer than `sequence_len` that became several examples.
    pub split_texts: usize,
    /// One entry per source, `datasets` before `test_datasets`.
    pub sources: Vec<SourceCounts>,
}

/// What one source holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceCounts {
    /// The source's path.
    pub path: String,
    /// The format that its rows are read by.
    pub format: &'static str,
    /// Whether the format was recognised by the columns and not named by the recipe.
    pub recognised: bool,
    /// Rows read.
    pub rows: usize,
    /// Files read.
    pub files: usize,
}
