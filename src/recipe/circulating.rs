//! Recipes as they circulate, written after the public key set: each passes or fails as it should.

use std::path::Path;

use adapters::Targets;
use datasets::HeldOut;

use super::{AdapterKind, Cadence, Problems, Recipe, Steps, Toggle};

fn read(text: &str) -> Result<Recipe, Problems> {
    Recipe::from_text(Path::new("recipe.yaml"), text, &[], &|_| None)
}

fn accepted(text: &str) -> Recipe {
    match read(text) {
        Ok(recipe) => recipe,
        Err(problems) => panic!("{problems}"),
    }
}

/// Line, column and start of the message of every problem.
fn refusals(text: &str) -> Vec<String> {
    match read(text) {
        Ok(_) => Vec::new(),
        Err(Problems(problems)) => {
            problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect()
        }
    }
}

const LLAMA_LORA: &str = r#"base_model: NousResearch/Llama-3.2-1B
# Automatically upload checkpoint and final model to HF
# hub_model_id: username/custom_model_name
model_type: LlamaForCausalLM
tokenizer_type: AutoTokenizer

load_in_8bit: false
load_in_4bit: false
strict: false

datasets:
  - path: data/alpaca.jsonl
    ds_type: json
    type: alpaca
dataset_prepared_path: last_run_prepared
val_set_size: 0.1
output_dir: ./outputs/lora-out

adapter: lora
lora_model_dir:

sequence_len: 2048
sample_packing: true
eval_sample_packing: true
pad_to_sequence_len: true

lora_r: 16
lora_alpha: 32
lora_dropout: 0.05
lora_fan_in_fan_out:
lora_target_modules:
  - gate_proj
  - down_proj
  - up_proj
  - q_proj
  - v_proj
  - k_proj
  - o_proj

wandb_project:
wandb_entity:
wandb_watch:
wandb_name:
wandb_log_model:

gradient_accumulation_steps: 2
micro_batch_size: 2
num_epochs: 1
optimizer: adamw_torch_fused
lr_scheduler: cosine
learning_rate: 2e-4

train_on_inputs: false
group_by_length: false
bf16: auto
fp16:
tf32: false

gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: false
early_stopping_patience:
resume_from_checkpoint:
local_rank:
logging_steps: 1
xformers_attention:
flash_attention: true

warmup_steps: 10
evals_per_epoch: 4
eval_table_size:
saves_per_epoch: 1
debug:
deepspeed:
weight_decay: 0.0
fsdp:
fsdp_config:
special_tokens:
  pad_token: "<|end_of_text|>"
"#;

#[test]
fn a_typical_llama_lora_recipe_passes_and_means_what_it_says() {
    let recipe = accepted(LLAMA_LORA);
    assert_eq!(*recipe.base_model, "NousResearch/Llama-3.2-1B");
    assert_eq!(recipe.adapter, Some(AdapterKind::Lora));
    assert_eq!((*recipe.lora_r, *recipe.lora_alpha, *recipe.lora_dropout), (16, 32.0, 0.05));
    assert!(matches!(&*recipe.lora_target_modules, Some(Targets::Names(names)) if names.len() == 7));
    assert_eq!(recipe.val_set_size, Some(HeldOut::Fraction(0.1)));
    assert_eq!(recipe.learning_rate, 2e-4);
    assert_eq!(recipe.lr_scheduler.name, "cosine");
    assert_eq!((*recipe.bf16, *recipe.fp16, *recipe.tf32), (Some(Toggle::Auto), None, Some(Toggle::False)));
    assert_eq!(recipe.special_tokens.pad_token.as_deref(), Some("<|end_of_text|>"));
    assert_eq!(recipe.datasets[0].source.format, Some("alpaca".into()));
    let hints: Vec<&str> = recipe.hints.iter().map(|hint| hint.key.as_str()).collect();
    assert_eq!(hints, ["optimizer", "gradient_checkpointing_kwargs.use_reentrant", "flash_attention"]);
    assert_eq!(recipe.hints[2].at, "recipe.yaml:67:18");
}

#[test]
fn the_same_recipe_with_a_4bit_optimizer_and_a_tracker_fails_at_those_two_lines() {
    let text =
        LLAMA_LORA.replace("adamw_torch_fused", "adamw_torch_4bit").replace("wandb_project:", "wandb_project: mine");
    assert_eq!(
        refusals(&text),
        [
            "recipe.yaml:40:1: `wandb_project` is an Axolotl key that is not implemented here",
            "recipe.yaml:49:12: `optimizer` does not support the text `adamw_torch_4bit`",
        ]
    );
}

#[test]
fn a_full_fine_tune_with_kernel_plugins_passes() {
    let recipe = accepted(
        r"base_model: Qwen/Qwen3-0.6B
plugins:
  - axolotl.integrations.liger.LigerPlugin
  - axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin
liger_rope: true
liger_rms_norm: true
liger_glu_activation: true
liger_layer_norm: true
liger_fused_linear_cross_entropy: true
cut_cross_entropy: true
chat_template: tokenizer_default
datasets:
  - path: data/chat.jsonl
    type: chat_template
    split: train
    field_messages: conversations
    message_property_mappings:
      role: from
      content: value
    roles:
      user: [human, user]
      assistant: [gpt, assistant]
    roles_to_train: [assistant]
    train_on_eos: turn
shuffle_merged_datasets: true
dataset_prepared_path:
val_set_size: 0
output_dir: ./out
adapter:
lora_r:
lora_alpha:
lora_dropout:
lora_target_linear:
sequence_len: 4096
sample_packing: true
attn_implementation: flash_attention_2
gradient_accumulation_steps: 8
micro_batch_size: 1
num_epochs: 3
optimizer: paged_adamw_32bit
lr_scheduler: cosine
cosine_min_lr_ratio: 0.1
learning_rate: 2e-5
warmup_ratio: 0.03
weight_decay: 0.01
max_grad_norm: 1.0
bf16: true
tf32: true
gradient_checkpointing: offload
save_strategy: epoch
save_total_limit: 2
eval_strategy: no
logging_steps: 1
seed: 42
",
    );
    assert_eq!(recipe.adapter, None);
    assert_eq!(recipe.val_set_size, None);
    assert_eq!(recipe.gradient_checkpointing, Toggle::True);
    assert_eq!((*recipe.save_strategy, *recipe.eval_strategy), (Some(Cadence::Epoch), Some(Cadence::No)));
    let dataset = &recipe.datasets[0];
    assert_eq!(dataset.source.message_property_mappings["role"], "from");
    assert_eq!(dataset.source.roles["assistant"], ["gpt", "assistant"]);
    assert_eq!(recipe.hints.len(), 11);
}

#[test]
fn a_qlora_recipe_is_read_with_its_watchdog() {
    let text = r"base_model: mistralai/Mistral-7B-v0.1
load_in_8bit: false
load_in_4bit: true
datasets:
  - path: mhenrichsen/alpaca_2k_test
    type: alpaca
val_set_size: 0.1
output_dir: ./outputs/qlora-out
adapter: qlora
sequence_len: 8192
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 1
optimizer: adamw_torch
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
tf32: false
gradient_checkpointing: true
loss_watchdog_threshold: 5.0
loss_watchdog_patience: 3
warmup_steps: 10
evals_per_epoch: 4
saves_per_epoch: 1
special_tokens:
";
    let recipe = accepted(text);
    assert_eq!((*recipe.loss_watchdog_threshold, *recipe.loss_watchdog_patience), (Some(5.0), 3));
    let off = text.replace("threshold: 5.0", "threshold: false").replace("patience: 3", "patience: 0");
    let recipe = accepted(&off);
    assert_eq!((*recipe.loss_watchdog_threshold, *recipe.loss_watchdog_patience), (None, 3));
}

#[test]
fn a_preference_recipe_on_several_devices_fails_at_every_such_line() {
    let text = r#"base_model: meta-llama/Llama-3.1-8B
trust_remote_code: true
plugins:
  - axolotl.integrations.liger.LigerPlugin
  - axolotl.integrations.kernels.KernelsPlugin
rl: dpo
datasets:
  - path: Intel/orca_dpo_pairs
    split: train[:10%]
    type: chatml.intel
    revision: main
adapter: lora
lora_target_linear: true
lora_modules_to_save: [embed_tokens, lm_head]
micro_batch_size: 1
gradient_accumulation_steps: 1
learning_rate: 1.0e-5
optimizer: adamw_torch
deepspeed: deepspeed_configs/zero2.json
fsdp_config:
  offload_params: true
special_tokens:
  additional_special_tokens: ["<|im_start|>"]
"#;
    let found = refusals(text);
    let places: Vec<&str> = found.iter().filter_map(|line| line.split(": ").next()).collect();
    let lines = ["2:1", "5:5", "6:1", "10:11", "19:1", "20:1", "23:3"];
    let wanted: Vec<String> = lines.iter().map(|line| format!("recipe.yaml:{line}")).collect();
    assert_eq!(places, wanted, "{found:#?}");
}

#[test]
fn cadence_in_shares_and_a_batch_size_pass() {
    let recipe = accepted(
        "base_model: m\ndatasets: [{path: a.jsonl, type: completion, field: text}]\nbatch_size: 8\nmicro_batch_size: 2\n\
         learning_rate: '1e-4'\neval_steps: 0.25\nsave_steps: 100\nsave_strategy: steps\nmax_steps: -1\n",
    );
    assert_eq!(recipe.eval_steps, Some(Steps::Fraction(0.25)));
    assert_eq!(recipe.save_steps, Some(Steps::Every(100)));
    assert_eq!((*recipe.batch_size, *recipe.max_steps), (Some(8), None));
    assert_eq!(recipe.learning_rate, 1e-4);
}
