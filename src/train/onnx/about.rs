//! What a file says about the run that it comes from.

use crate::train::checkpoint::Header;
use crate::train::data::{Inventory, Text};
use crate::train::models::Activation;

/// Entries for the metadata of a file, from a checkpoint and the inventory of the data of its run:
///
/// | key | what |
/// |---|---|
/// | `dataset`, `network`, `activation`, `region`, `seed`, `epochs` | the run; `region` if the activation is not ReLU |
/// | `test_accuracy` | share of the test part that is classified rightly, after the last finished epoch |
/// | `classes`, `class_names` | their number; their names by logit, JSON, if they have any |
/// | `scale`, `mean`, `deviation` | images: a stored value `x` of channel `c` is fed as `(x · scale − mean[c]) / deviation[c]`; JSON |
/// | `text`, `vocabulary` | texts: `words` or `characters`; the words of tokens from 2 on, JSON |
pub fn metadata(header: &Header, inventory: &Inventory) -> Vec<(String, String)> {
    let (data, model, train) = (&header.config.data, &header.config.model, &header.config.train);
    let mut entries = vec![
        ("dataset", data.source.to_string()),
        ("network", model.network.to_string()),
        ("activation", model.activation.to_string()),
        ("seed", train.seed.to_string()),
        ("epochs", header.progress.epochs.to_string()),
        ("classes", inventory.classes.to_string()),
    ];
    if model.activation != Activation::Relu {
        entries.push(("region", model.region.to_string()));
    }
    if let Some(last) = header.history.last() {
        entries.push(("test_accuracy", last.test_accuracy.to_string()));
    }
    if !inventory.class_names.is_empty() {
        entries.push(("class_names", json(&inventory.class_names)));
    }
    match inventory.example.as_ref().map(|example| (example.text, example)) {
        Some((Some(Text::Words(_)), _)) => {
            entries.extend([("text", "words".to_owned()), ("vocabulary", json(&inventory.vocabulary))]);
        }
        Some((Some(Text::Characters(_)), _)) => entries.push(("text", "characters".to_owned())),
        Some((None, example)) => {
            let part = |index: usize| json(&example.normalization.iter().map(|part| part[index]).collect::<Vec<f32>>());
            entries.extend([("scale", example.scale.to_string()), ("mean", part(0)), ("deviation", part(1))]);
        }
        None => {}
    }
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Text or numbers, which always are JSON.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| unreachable!("lists of text and numbers are JSON: {error}"))
}
