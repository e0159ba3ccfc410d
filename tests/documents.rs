//! What the documents say about the repository is so: features, paths and links. (Their programs are tests of their own.)
#![cfg(feature = "std")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{BrokenLink, Event, Options, Parser, Tag, TagEnd};

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
    // Targets of links begin with `..`. They have a test of their own.
    let named = folders.iter().any(|folder| word.starts_with(folder)) || word.ends_with(".rs");
    plain && named && !word.starts_with("..")
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

/// All Markdown files of the repository.
fn documents() -> Vec<PathBuf> {
    let mut documents = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // What builds and tests leave behind is nobody's document.
            let ours = !name.starts_with('.') && !["target", "node_modules", "venv"].contains(&name.as_str());
            if path.is_dir() && ours && !path.join("CACHEDIR.TAG").exists() {
                folders.push(path);
            } else if name.ends_with(".md") {
                documents.push(path);
            }
        }
    }
    documents
}

/// What a document links to, and what can be linked to in it.
struct Links {
    /// Targets of links and pictures, without addresses of other servers.
    targets: Vec<String>,
    /// The anchors that GitHub gives to the headings.
    anchors: BTreeSet<String>,
    /// Links whose target the document does not define.
    undefined: Vec<String>,
    /// The names of the definitions of links.
    definitions: BTreeSet<String>,
}

impl Links {
    fn of(document: &str) -> Self {
        let mut undefined = Vec::new();
        let mut note = |link: BrokenLink<'_>| {
            undefined.push(link.reference.to_string());
            None
        };
        let parser = Parser::new_with_broken_link_callback(document, Options::ENABLE_TABLES, Some(&mut note));
        let definitions = parser.reference_definitions().iter().map(|(name, _)| name.to_owned()).collect();
        let (mut targets, mut anchors, mut heading) = (Vec::new(), BTreeSet::new(), None::<String>);
        for event in parser {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    targets.push(dest_url.to_string())
                }
                Event::Html(html) | Event::InlineHtml(html) => {
                    targets.extend(
                        html.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned),
                    );
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap_or_default());
                    let repeated = (1..).map(|number| format!("{slug}-{number}"));
                    let free = std::iter::once(slug.clone()).chain(repeated).find(|name| !anchors.contains(name));
                    anchors.extend(free);
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        targets.retain(|target| !target.contains("://") && !target.starts_with("mailto:"));
        Self { targets, anchors, undefined, definitions }
    }
}

/// The anchor of a heading: lower case, hyphens for spaces, no punctuation.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    if is_package() {
        return;
    }
    let mut count = 0;
    for document in documents() {
        let links = Links::of(&read(&document));
        for target in &links.targets {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            assert!(path.exists(), "{}: its link to {target} leads nowhere", document.display());
            let anchored = anchor.is_empty() || Links::of(&read(&path)).anchors.contains(anchor);
            assert!(anchored, "{}: {target} names a heading that is not there", document.display());
            count += 1;
        }
    }
    assert!(count > 100, "only {count} links were found");
}

#[test]
fn links_of_the_guide_are_defined_for_readers_of_its_files_and_for_rustdoc() {
    let mut defined = BTreeSet::new();
    for page in pages() {
        let Links { undefined, definitions, .. } = Links::of(&read(&page));
        assert!(undefined.is_empty(), "{}: its end defines no target of {undefined:?}", page.display());
        defined.extend(definitions);
    }
    let module = read("src/guide/mod.rs");
    let lines: Vec<_> = module.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(
        Links::of(&lines.join("\n")).definitions,
        defined,
        "src/guide/mod.rs defines other links than the pages"
    );
    assert!(defined.len() > 30, "only {} definitions were found", defined.len());
}

#[test]
fn links_are_read_as_they_are_written() {
    let document = "# A `b`, c!\n\n[d](e.md#f) ![g](h.svg) `[i](j)` [k] [l] [m](https://n)\n\n# A b c\n\n<img src=\"o.png\">\n\n[k]: p.md\n";
    let Links { targets, anchors, undefined, definitions } = Links::of(document);
    assert_eq!(targets, ["e.md#f", "h.svg", "p.md", "o.png"]);
    assert_eq!(anchors, BTreeSet::from(["a-b-c", "a-b-c-1"].map(str::to_owned)));
    assert_eq!((undefined, definitions), (vec!["l".to_owned()], BTreeSet::from(["k".to_owned()])));
}

#[test]
fn a_table_of_features_is_read_as_it_is_written() {
    let table = "//! | feature | default | what it adds | what it needs |\n//! |---|---|---|---|\n//! | `a` | yes | x | `b`, y |\n";
    let row = Row { default: true, needs: BTreeSet::from(["b".to_owned()]) };
    assert_eq!(features_in(table), BTreeMap::from([("a".to_owned(), row)]));
}
