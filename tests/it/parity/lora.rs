//! LoRA against PEFT: logits with an adapter at its start, at its end and merged; and the adapter's
//! folder written and read back.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use adapters::peft::{self, Origin, PeftError, SavedAdapter, attach_saved};
use adapters::{AdapterSpec, Parameter, Targets, Weight};
use burn::tensor::FloatDType;
use serde_json::Value;
use tune::model::{Decoder, names};

use super::Bench;
use super::check::{Check, settle};
use super::fixture::{self, Model, Tensors};

/// Adapters that this version supports: their cases must not be skipped.
const SUPPORTED: [&str; 8] = [
    "llama31_all_linear",
    "llama31_dora",
    "llama31_qv_rslora",
    "mistral_nemo_mlp",
    "mistral_sw_dora_rslora",
    "phi4_fused",
    "qwen3_all_linear",
    "qwen3_lm_head",
];

/// An adapter that the reference trained.
pub(super) struct Variant {
    /// Its folder below the root.
    pub(super) folder: String,
    pub(super) model: Model,
    /// `trace.json`.
    pub(super) summary: Value,
}

/// Every variant that the bench takes, whose base and whose adapter are supported.
pub(super) fn variants(bench: &Bench) -> Vec<Variant> {
    variants_in("lora", &SUPPORTED, bench)
}

/// The same of the folder `kind`; those called `supported` must not be skipped.
pub(super) fn variants_in(kind: &str, supported: &[&str], bench: &Bench) -> Vec<Variant> {
    let open = |name: String| {
        let folder = format!("{kind}/{name}");
        let summary = fixture::json(&format!("{folder}/trace.json"));
        let model = Model::open(summary["spec"]["base"].as_str().unwrap())?;
        let adapter = fixture::root().join(&folder).join("init");
        match read(&adapter, &model) {
            Ok(_) => Some(Variant { folder, model, summary }),
            Err(error) => {
                // Only what the reader refuses by name may be skipped.
                assert!(
                    !supported.contains(&name.as_str()) && error.to_string().contains("is not supported"),
                    "{error}"
                );
                super::say(&format!("SKIPPED {folder}: {error}"));
                None
            }
        }
    };
    fixture::cases(kind).into_iter().filter(|name| bench.takes(name)).filter_map(open).collect()
}

/// An adapter of `model`.
fn read(folder: &Path, model: &Model) -> Result<SavedAdapter, PeftError> {
    let spec = &model.resolved.spec;
    SavedAdapter::read(folder, &names::shapes(spec), names::module_paths(spec))
}

impl Variant {
    pub(super) fn adapter(&self, state: &str) -> SavedAdapter {
        read(&fixture::root().join(&self.folder).join(state), &self.model).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The base with the adapter's `state`, which is `init` or `final`.
    pub(super) fn adapted(&self, bench: &Bench, state: &str) -> Decoder {
        let mut decoder = self.model.decoder(bench, bench.compute);
        attach_saved(&self.adapter(state), decoder.adaptable(), &bench.device.device)
            .unwrap_or_else(|error| panic!("{error}"));
        decoder
    }

    /// Writes what is trained in `decoder` as PEFT lays it out, into a folder of its own: tests run side by side.
    fn write(&self, decoder: &mut Decoder, what: &str) -> PathBuf {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        let call = format!("{what}-{}", CALLS.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("parity").join(call).join(&self.folder);
        let (saved, decoder) = (self.adapter("final"), decoder.adaptable());
        let modules = decoder.modules.iter().map(|(path, _)| path.clone());
        let spec = AdapterSpec {
            method: saved.method,
            targets: Targets::AllLinear,
            parameters: Vec::new(),
            saved_modules: modules.filter(|path| saved.targets().contains(path)).collect(),
            layers: None,
            seed: 0,
        };
        let paths = names::module_paths(&self.model.resolved.spec);
        let origin = Origin { base_model: "base", revision: None, paths };
        peft::write(&folder, &spec, &origin, &decoder, FloatDType::F32).unwrap();
        folder
    }

    /// What is trained in `decoder` by PEFT's names and in PEFT's layout.
    pub(super) fn as_peft(&self, decoder: &mut Decoder, what: &str) -> Tensors {
        Tensors::read_at(&self.write(decoder, what).join("adapter_model.safetensors"))
    }

    pub(super) fn tensors(&self, file: &str) -> Tensors {
        Tensors::read(&format!("{}/{file}.safetensors", self.folder))
    }
}

/// Folds every update into its weight.
fn merge(decoder: &mut Decoder) {
    let adaptable = decoder.adaptable();
    for projection in adaptable.projections {
        projection.weight = Weight::Dense(Parameter::from_matrix(projection.merged_weight()));
        projection.update = None;
    }
    for stack in adaptable.stacks {
        let count = stack.weight.count();
        let merged = stack.merged_weight().reshape([count]);
        stack.weight.replace(merged);
        stack.update = None;
    }
}

#[test]
fn adapted_and_merged_logits_equal_the_reference() {
    let Some(bench) = Bench::open_for_full_set("adapted_and_merged_logits_equal_the_reference") else {
        return;
    };
    let (variants, mut wrong) = (variants(&bench), Vec::new());
    for variant in &variants {
        let mut check = Check::new(&variant.folder);
        let tensors = variant.tensors("forward");
        let batch = fixture::in_rows(&tensors.examples("batch"), tensors.width("batch.input_ids"));
        let mut compare = |state: &'static str, decoder: &Decoder, bound: f64| {
            let ours = fixture::real(&fixture::logits(decoder, &batch), &batch);
            let name = format!("logits.{state}");
            let reference = fixture::real(tensors.floats(&name), &batch);
            check.close(state, name, &ours, &reference, bound);
        };
        compare("base", &variant.model.decoder(&bench, FloatDType::F32), bench.tolerance.logits);
        compare("init", &variant.adapted(&bench, "init"), bench.tolerance.logits);
        let mut decoder = variant.adapted(&bench, "final");
        compare("final", &decoder, bench.tolerance.trained_logits);
        merge(&mut decoder);
        compare("merged", &decoder, bench.tolerance.trained_logits);
        check.done(&mut wrong);
    }
    settle(&wrong, variants.len());
}

#[test]
fn a_written_adapter_reads_back_equal_and_has_the_tensors_of_the_reference() {
    let Some(bench) =
        Bench::open_for_full_set("a_written_adapter_reads_back_equal_and_has_the_tensors_of_the_reference")
    else {
        return;
    };
    let variants = variants(&bench);
    for variant in &variants {
        let saved = variant.adapter("final");
        let folder = variant.write(&mut variant.adapted(&bench, "final"), "written");
        let read = read(&folder, &variant.model).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read.method, saved.method, "{}", variant.folder);
        assert_eq!(read.targets(), saved.targets(), "{}", variant.folder);
        let ours = Tensors::read_at(&folder.join("adapter_model.safetensors"));
        let reference = variant.tensors("final/adapter_model");
        assert_eq!(ours.names().collect::<Vec<_>>(), reference.names().collect::<Vec<_>>(), "{}", variant.folder);
        for name in ours.names() {
            assert_eq!(ours.floats(name), reference.floats(name), "{}: {name}", variant.folder);
        }
    }
    settle(&[], variants.len());
}
