//! The top-level keys that are real and not implemented, grouped by what to do instead.
//!
//! Pinned to Axolotl 0.19 with its plugins, and to what older recipes in circulation carry; keys
//! that are planned and not supported yet are here as well.

use super::{Off, Refused, axolotl, planned, transformers};

/// The recipe's top level.
pub(in crate::recipe) const TOP: &[Refused] = &[
    axolotl(Off::Boolean, "recipes are always read strictly; write true, false or nothing", "strict"),
    // Keys of other trainers that are often met in recipes.
    transformers(
        Off::Word("none"),
        "remove it; every step is in `metrics.jsonl`, and nothing is sent anywhere",
        "report_to run_name logging_dir",
    ),
    transformers(
        Off::Boolean,
        "remove it; `tune run` trains, and evaluates where `val_set_size` or `test_datasets` hold rows out",
        "do_train do_eval do_predict",
    ),
    transformers(
        Off::False,
        "nothing is uploaded; upload the folder of `output_dir` with the hub's own tool",
        "push_to_hub hub_token hub_private_repo",
    ),
    transformers(
        Off::False,
        "remove it; a folder that holds another run is never overwritten",
        "overwrite_output_dir overwrite_cache",
    ),
    transformers(Off::Never, "use `bf16` or `fp16`", "torch_dtype dtype"),
    transformers(Off::False, "use `device: cpu`", "use_cpu no_cuda"),
    // Planned keys of this program alone.
    planned(Off::Never, "remove it, and compare the figures of `metrics.jsonl` instead", "gates"),
    planned(Off::False, "remove it; figures are in `metrics.jsonl`", "report"),
    // Adapters and quantisation.
    axolotl(
        Off::False,
        "remove it; of quantised bases NF4 is supported: `adapter: qlora` with `load_in_4bit: true`",
        "qlora_sharded_model_loading gptq gptq_groupsize gptq_model_v1 \
         gptq_disable_exllama loftq_config peft quantize_moe_experts model_quantization_config \
         model_quantization_config_kwargs qat quantization fp8 fp8_config \
         fp8_enable_fsdp_float8_all_gather use_onebitllms",
    ),
    axolotl(
        Off::False,
        "name projections in `lora_target_modules`, or whole modules in `lora_modules_to_save`",
        "peft_trainable_token_indices peft_ensure_weight_tying",
    ),
    axolotl(
        Off::False,
        "use plain LoRA (`peft_use_rslora: true` changes its scale), or DoRA (`peft_use_dora: true`)",
        "use_mora mora_type mora relora relora_steps relora_warmup_steps \
         relora_anneal_steps relora_prune_ratio relora_prune_method relora_cpu_offload \
         jagged_restart_steps jagged_restart_warmup_steps jagged_restart_anneal_steps \
         lisa_n_layers lisa_step_interval lisa_layers_attribute spectrum_top_fraction \
         spectrum_model_name",
    ),
    axolotl(
        Off::Never,
        "one rank, one scale and one learning rate hold for all targets: use `lora_r`, `lora_alpha`, `learning_rate`",
        "lora_rank_pattern lora_alpha_pattern loraplus_lr_ratio loraplus_lr_embedding",
    ),
    axolotl(Off::Never, "choose layers with `peft_layers_to_transform`", "peft_layers_pattern peft_layer_replication"),
    axolotl(Off::True, "remove it; adapters are always trained in float32", "peft_autocast_adapter_dtype"),
    axolotl(
        Off::False,
        "remove it; merging is `export: {formats: [merged]}`, or `tune merge` afterwards",
        "merge_lora merge_method lora_on_cpu",
    ),
    // The base model and its tokenizer.
    axolotl(
        Off::False,
        "no code is run from model folders; families are built in, `tune inspect` shows which",
        "trust_remote_code",
    ),
    axolotl(
        Off::Never,
        "remove it; the config is read from the folder of `base_model`",
        "base_model_config cls_model_config model_config overrides_of_model_config \
         overrides_of_model_kwargs type_of_model rope_scaling",
    ),
    axolotl(
        Off::False,
        "remove it; the tokenizer is read from `tokenizer.json` as it is",
        "tokenizer_legacy tokenizer_use_mistral_common tokenizer_save_jinja_files tokens \
         added_tokens_overrides resize_token_embeddings_to_32x mean_resizing_embeddings \
         shrink_embeddings fix_untrained_tokens",
    ),
    axolotl(
        Off::False,
        "only text models are trained; remove it",
        "processor_type processor_kwargs image_size image_resize_algorithm role_boundaries \
         freeze_mm_modules",
    ),
    axolotl(
        Off::False,
        "weights stay where and as they are; remove it",
        "experimental_skip_move_to_device embeddings_skip_upcast reinit_weights \
         llama4_linearized_experts",
    ),
    axolotl(
        Off::False,
        "remove it; the family is read from the model's config.json",
        "is_falcon_derived_model is_llama_derived_model is_mistral_derived_model \
         is_qwen_derived_model",
    ),
    // Data.
    axolotl(
        Off::False,
        "remove it; data is read from the local files of `datasets`, as a whole and in this process",
        "pretraining_dataset streaming streaming_multipack_buffer_size \
         pretraining_sample_concatenation pretrain_multipack_buffer_size \
         pretrain_multipack_attn dataset_shard_num dataset_shard_idx num_dataset_shards_to_save \
         dataset_processes dataset_num_proc dataset_keep_in_memory dataset_exact_deduplication \
         push_dataset_to_hub hf_use_auth_token is_preprocess preprocess_iterable \
         total_num_tokens total_supervised_tokens accelerator_config",
    ),
    axolotl(
        Off::FalseOrZero,
        "remove it; batches are prepared in this process",
        "dataloader_num_workers dataloader_prefetch_factor dataloader_drop_last",
    ),
    axolotl(Off::Never, "remove it; batches are prepared in this process", "dataloader_pin_memory"),
    axolotl(Off::True, "remove it; only tokens and their mask reach the model", "remove_unused_columns"),
    axolotl(
        Off::False,
        "rows are ordered by the seed; use `shuffle_merged_datasets` and `sample_packing`",
        "group_by_length curriculum_sampling shuffle_before_merging_datasets",
    ),
    axolotl(
        Off::False,
        "one `sequence_len` holds for training and evaluation, and shorter rows are kept",
        "eval_sequence_len min_sample_len max_prompt_len",
    ),
    axolotl(
        Off::False,
        "remove it; `sample_packing` has one algorithm",
        "sample_packing_group_size sample_packing_bin_size sample_packing_sequentially \
         sample_packing_mp_start_method sample_packing_eff_est max_packed_sequence_len \
         multipack_real_batches batch_flattening pad_to_multiple_of",
    ),
    axolotl(
        Off::False,
        "only `sequence_len` limits the context; remove it",
        "use_pose pose_split_on_token_ids pose_max_context_len pose_num_chunks",
    ),
    axolotl(
        Off::Never,
        "write it into the rows, or into the template of `chat_template_jinja`",
        "default_system_message",
    ),
    // Kernels that do change results, or do not apply.
    axolotl(
        Off::False,
        "remove it; attention is exact here",
        "sage_attention s2_attention flash_optimum flash_attn_cross_entropy flash_attn_rms_norm \
         flash_attn_fuse_mlp flash_attn_fuse_qkv flash_attn_d512 flex_attn_compile_kwargs \
         gemma4_hybrid_attn_impl large_head_attention sdpa_varlen fused_attn_kernel \
         scaling_softmax scaling_softmax_factor scaling_softmax_bias",
    ),
    axolotl(
        Off::False,
        "remove it; the loss is plain cross-entropy per trained token",
        "liger_use_token_scaling use_eaft eaft_alpha eaft_k chunked_cross_entropy \
         chunked_cross_entropy_num_chunks",
    ),
    axolotl(
        Off::False,
        "remove it; kernels are chosen by device",
        "torch_compile_backend torch_compile_mode torch_compile_options tiled_mlp \
         tiled_mlp_num_shards tiled_mlp_use_original_mlp experts_implementation ple_cpu_offload \
         expert_backend nonexpert_quantization moe_grouped_backend moe_dequant_chunk_size \
         moe_bnb_fast use_scattermoe use_sonicmoe use_glm_dsa_kernels dense_mixer \
         torchdistx_path unsloth_cross_entropy_loss unsloth_lora_mlp unsloth_lora_qkv \
         unsloth_lora_o unsloth_rms_norm unsloth_rope bettertransformer fp32_norms \
         fp32_norm_classes",
    ),
    // Memory and devices.
    axolotl(
        Off::False,
        "use `gradient_checkpointing: true`",
        "selective_checkpointing activation_offloading layer_offloading",
    ),
    axolotl(
        Off::False,
        "training runs on one device: choose it with `device`, and lower `micro_batch_size` when memory is short",
        "deepspeed deepcompile fsdp fsdp_config fsdp_version fsdp_final_state_dict_type \
         device_map world_size ddp ddp_timeout ddp_bucket_cap_mb ddp_broadcast_buffers \
         dp_shard_size dp_replicate_size sequence_parallel_degree context_parallel_size \
         heads_k_stride ring_attn_func tensor_parallel_size expert_parallel_size \
         expert_parallel_backend use_ray ray_run_name ray_num_workers resources_per_worker \
         max_memory gpu_memory_limit capabilities env_capabilities",
    ),
    axolotl(Off::FalseOrZero, "training runs on one device: choose it with `device`", "local_rank"),
    axolotl(
        Off::FalseOrZero,
        "remove it; memory is returned as it becomes free",
        "gc_steps gc_collect_steps torch_empty_cache_steps",
    ),
    axolotl(Off::False, "use `bf16`", "bfloat16 float16 float32"),
    // Optimisation.
    axolotl(Off::False, "write `micro_batch_size: auto` with `batch_size`", "auto_find_batch_size"),
    axolotl(
        Off::False,
        "one learning rate holds for all parameters; remove it",
        "embedding_lr embedding_lr_scale lr_groups",
    ),
    axolotl(
        Off::False,
        "use `adam_beta1`, `adam_beta2`, `adam_epsilon` and `weight_decay`",
        "optim_args optim_target_modules adam_epsilon2 adam_beta3",
    ),
    axolotl(
        Off::False,
        "the schedules are constant, constant_with_warmup, linear and cosine with `cosine_min_lr_ratio`",
        "lr_scheduler_kwargs lr_quadratic_warmup cosine_constant_lr_ratio lr_div_factor \
         log_sweep_min_lr log_sweep_max_lr eta_min",
    ),
    axolotl(
        Off::False,
        "use `optimizer: adamw_torch`",
        "dion_lr dion_momentum dion_rank_fraction dion_rank_multiple_of qgalore_rank \
         qgalore_update_proj_gap qgalore_scale qgalore_proj_type qgalore_proj_quant \
         qgalore_proj_bits qgalore_proj_group_size qgalore_cos_threshold qgalore_gamma_proj \
         qgalore_queue_size grokfast_alpha grokfast_lamb",
    ),
    axolotl(Off::False, "write `neftune_noise_alpha`", "noisy_embedding_alpha"),
    // Other objectives.
    axolotl(
        Off::False,
        "only supervised fine-tuning is implemented; remove it",
        "rl trl vllm ebft rl_beta dpo_beta dpo_use_weighting dpo_label_smoothing \
         precompute_ref_log_probs dpo_use_liger_kernel dpo_padding_free dpo_loss_type \
         dpo_loss_weights dpo_use_logits_to_keep dpo_generate_during_eval dpo_norm_loss \
         rpo_alpha orpo_alpha simpo_gamma cpo_alpha kto_desirable_weight kto_undesirable_weight \
         reward_model process_reward_model center_rewards_coefficient num_labels \
         do_causal_lm_eval trainer_cls kd_trainer kd_ce_alpha kd_alpha kd_temperature kd_beta \
         kd_normalize_topk diffusion noise_schedule nemo_gym_enabled hatchery llmcompressor",
    ),
    // Evaluation, saving, resuming.
    axolotl(Off::False, "write `eval_strategy`", "evaluation_strategy"),
    axolotl(
        Off::FalseOrZero,
        "evaluation reports the loss, and held-out prompts with their answers at the end; remove it",
        "eval_table_size eval_max_new_tokens eval_causal_lm_metrics do_bench_eval bench_dataset \
         bench_split bench_source_max_len generate_samples num_generation_samples \
         generation_max_new_tokens generation_temperature generation_top_p generation_top_k \
         generation_prompt_ratio generation_do_sample lm_eval_tasks lm_eval_batch_size \
         lm_eval_post_train lm_eval_model generation_interval generation_steps \
         generation_max_length",
    ),
    axolotl(
        Off::Word("eval_loss"),
        "remove it; the best state is that of the lowest held-out loss",
        "metric_for_best_model",
    ),
    axolotl(Off::False, "remove it; the best state is that of the lowest held-out loss", "greater_is_better"),
    axolotl(
        Off::False,
        "use `save_strategy` with `save_steps` or `saves_per_epoch`",
        "save_first_step save_only_model dynamic_checkpoint",
    ),
    axolotl(Off::True, "remove it; checkpoints are always safetensors", "save_safetensors"),
    axolotl(
        Off::False,
        "nothing is uploaded; upload the folder of `output_dir` with the hub's own tool",
        "hub_model_id hub_strategy hub_revision",
    ),
    // Trackers and the rest.
    axolotl(
        Off::Word("disabled"),
        "remove it; every step is in `metrics.jsonl`, and nothing is sent anywhere",
        "wandb_mode swanlab_mode comet_mode",
    ),
    axolotl(
        Off::False,
        "remove it; every step is in `metrics.jsonl`, and nothing is sent anywhere",
        "use_wandb wandb_name wandb_run_id wandb_project wandb_entity wandb_watch \
         wandb_log_model use_tensorboard use_mlflow mlflow_tracking_uri mlflow_experiment_name \
         mlflow_run_name hf_mlflow_log_artifacts use_comet comet_api_key comet_workspace \
         comet_project_name comet_experiment_key comet_online comet_experiment_config \
         use_trackio trackio_project_name trackio_run_name trackio_space_id use_swanlab \
         swanlab_project swanlab_experiment_name swanlab_description swanlab_workspace \
         swanlab_log_completions swanlab_completion_log_interval swanlab_completion_max_buffer \
         use_otel_metrics otel_metrics_host otel_metrics_port wandb_run_name project_name",
    ),
    axolotl(
        Off::False,
        "remove it; speed and memory are in `metrics.jsonl`",
        "profiler_steps profiler_steps_start include_tokens_per_second include_tkps",
    ),
    axolotl(
        Off::False,
        "remove it; `tune generate` answers prompts on the command line",
        "gradio_title gradio_share gradio_server_name gradio_server_port gradio_max_new_tokens \
         gradio_temperature",
    ),
    axolotl(Off::False, "remove it; `tune preview` shows the examples", "debug axolotl_config_path"),
];
