//! From the text of a recipe to [`Recipe`]: a tree, overrides and variables put in, read by the schema.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::problem::{Position, ProblemLog, Problems, Source};
use super::reader::{Findings, Section};
use super::schema::Keys;
use super::values::AdapterKind;
use super::yaml::{Node, Value};
use super::{Recipe, checks, environment, overrides, tree, written};

/// Reads `text` as a recipe.
pub(super) fn recipe(
    source: &Arc<Source>,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Recipe, Problems> {
    let mut problems = ProblemLog::default();
    let Some(mut root) = tree::parse(text, None, &mut problems) else {
        problems.into_result(source)?;
        // The problem was reported above; an empty list is the honest rest.
        return Err(Problems(Vec::new()));
    };
    overrides::apply(&mut root, &source.overrides, &mut problems);
    environment::expand_home(&mut root, env);
    let as_written = written::by_key(&root);
    environment::expand(&mut root, env, &mut problems);
    environment::expand_home(&mut root, env);

    let findings = Findings::new(source, problems);
    let mut recipe = top(&findings, &root);
    let Findings { problems, hints, .. } = findings;
    problems.into_inner().into_result(source)?;
    let mut hints = hints.into_inner();
    hints.sort_by_key(|(position, _)| *position);
    recipe.hints = hints.into_iter().map(|(_, hint)| hint).collect();
    recipe.path = source.path.clone();
    recipe.text = text.to_owned();
    recipe.overrides = source.overrides.clone();
    recipe.values = written::without_environment(as_written, written::by_key(&root));
    record_places(&root, "", &mut recipe.places);
    Ok(recipe)
}

/// Every key of the tree; a key that is missing from the file is nowhere in it.
fn top(findings: &Findings, root: &Node) -> Recipe {
    let mut top = Section::new(findings, "", root, Position::Whole);
    let mut recipe = Recipe::read(&mut top);
    // Circulating recipes write it so; the adapter on a base in 4 bits has a name of its own.
    if *recipe.adapter == Some(AdapterKind::Lora) && *recipe.load_in_4bit {
        recipe.adapter.replace(Some(AdapterKind::Qlora));
    }
    checks::check(findings, &recipe);
    top.finish(Recipe::NO_EFFECT, Recipe::REFUSED);
    recipe
}

/// Every key's place by dotted name: its value's, or its own where the value is a block.
fn record_places(node: &Node, name: &str, places: &mut BTreeMap<String, Position>) {
    let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
    match &node.value {
        Value::Scalar { .. } => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                let name = format!("{prefix}{index}");
                record_places(item, &name, places);
                places.insert(name, item.at);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let name = format!("{prefix}{}", entry.key);
                record_places(&entry.node, &name, places);
                places.insert(name, entry.place());
            }
        }
    }
}
