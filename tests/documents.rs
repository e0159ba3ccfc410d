//! What the documents say about the repository is so: features, paths and links. (Their programs are tests of their own.)
#![cfg(feature = "std")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files of a published package are fewer: benchmarks' results and scripts are not among them.
fn is_package() -> bool {
    root().join("Cargo.toml.orig").exists()
}

/// The Markdown files of the guide.
fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("src/guide")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    pages.sort();
    assert!(pages.len() >= 9, "{pages:?}");
    pages
}

/// A row of the features' table.
#[derive(Debug, PartialEq)]
struct Row {
    default: bool,
    /// Features that it turns on.
    needs: BTreeSet<String>,
}

/// The rows of the table of features in a document, by feature.
fn features_in(document: &str) -> BTreeMap<String, Row> {
    let lines = document.lines().map(|line| line.trim_start_matches("//! "));
    let table = lines.skip_while(|line| !line.starts_with("| feature | default |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, default, _, needs] = cells[..] else { panic!("a row of other than four cells: {line}") };
        assert!(["", "yes"].contains(&default), "{line}");
        let needs = needs.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (name.trim_matches('`').to_owned(), Row { default: default == "yes", needs })
    });
    rows.collect()
}

#[test]
fn the_table_of_features_is_that_of_the_manifest() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let strings = |value: &toml::Value| -> BTreeSet<String> {
        value.as_array().unwrap().iter().map(|entry| entry.as_str().unwrap().to_owned()).collect()
    };
    let mut features: BTreeMap<String, BTreeSet<String>> =
        manifest["features"].as_table().unwrap().iter().map(|(name, value)| (name.clone(), strings(value))).collect();
    let default = features.remove("default").unwrap();
    // For the tests of this package alone.
    features.remove("internal-testing").unwrap();

    let mut table = features_in(&read("src/lib.rs"));
    let core = table.remove("none").expect("a row for no feature");
    assert!(!core.default);
    let names = |map: &BTreeMap<String, _>| map.keys().cloned().collect::<BTreeSet<_>>();
    let listed = table.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(listed, names(&features), "src/lib.rs lists other features than Cargo.toml has");
    for (name, row) in &table {
        assert_eq!(row.default, default.contains(name), "{name}: in the defaults or not");
        for needed in features[name].iter().filter(|needed| features.contains_key(*needed)) {
            assert!(row.needs.contains(needed), "{name} turns on {needed}, which src/lib.rs does not say");
        }
    }
}

#[test]
fn every_page_of_the_guide_begins_with_a_question() {
    for page in pages() {
        let text = read(&page);
        let first = text.split("\n\n").next().unwrap();
        assert!(first.ends_with('?') && !first.starts_with('#'), "{}: {first}", page.display());
    }
}

/// Whether a word of a document names a file of the repository.
fn names_a_file(word: &str) -> bool {
    let folders = [".ci/", "benches/", "fuzz/", "src/", "tests/"];
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    plain && (folders.iter().any(|folder| word.starts_with(folder)) || word.ends_with(".rs"))
}

#[test]
fn files_that_the_guide_names_exist() {
    if is_package() {
        return;
    }
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        // Code between backticks, and words of blocks of code.
        let words = text.split(|c: char| c.is_whitespace() || "`,;()".contains(c));
        for word in words.map(|word| word.trim_end_matches(['.', ':'])).filter(|word| names_a_file(word)) {
            // Of the core's sources, the guide leaves out the folder.
            let found = root().join(word).exists() || root().join("src").join(word).exists();
            // Built, not kept.
            let built = word.contains("/target/");
            assert!(found || built, "{}: there is no {word}", page.display());
            count += 1;
        }
    }
    assert!(count > 50, "only {count} names of files were found");
}

#[test]
fn links_between_documents_lead_somewhere() {
    if is_package() {
        return;
    }
    let documents = [
        "README.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "benches/peers/README.md",
        "benches/results/README.md",
        "src/python/README.md",
    ];
    let mut count = 0;
    for document in documents {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_owned();
        for (start, _) in text.match_indices("](") {
            let target = text[start + 2..].split(')').next().unwrap();
            let file = target.split('#').next().unwrap();
            if file.is_empty() || target.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{document}: its link to {target} leads nowhere");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} links were found");
}

#[test]
fn a_table_of_features_is_read_as_it_is_written() {
    let table = "//! | feature | default | what it adds | what it needs |\n//! |---|---|---|---|\n//! | `a` | yes | x | `b`, y |\n";
    let row = Row { default: true, needs: BTreeSet::from(["b".to_owned()]) };
    assert_eq!(features_in(table), BTreeMap::from([("a".to_owned(), row)]));
}
