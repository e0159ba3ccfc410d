//! Where `unsafe` is: in the kernels, at the C interface, around one call of the trainer's, where the program asks about
//! signals, and in the library of the Python package; how often, SECURITY.md says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where it may be: with `/`, everything below.
const ALLOWED: [&str; 5] = ["kernel/", "capi/", "matmul.rs", "bin/convrelu/stop.rs", "python/native/"];

/// Where a check that release builds leave out would be one that unsafe code trusts.
const CHECKED: [&str; 2] = ["kernel/", "capi/"];

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Sources below a folder, by their paths in it. What Cargo writes beside a crate's sources, in `target`, is not among them.
fn sources(folder: &Path, prefix: &str, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            if path.file_name().unwrap() != "target" {
                sources(&path, &format!("{name}/"), found);
            }
        } else if name.ends_with(".rs") {
            found.insert(name, std::fs::read_to_string(path).unwrap());
        }
    }
}

/// A source without comments, and without what strings and characters hold.
fn code(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '/' if rest.peek() == Some(&'/') => {
                rest.by_ref().find(|&c| c == '\n');
                code.push('\n');
            }
            '"' => {
                while let Some(c) = rest.next() {
                    match c {
                        '\\' => drop(rest.next()),
                        '"' => break,
                        _ => (),
                    }
                }
                code.push_str("\"\"");
            }
            '\'' => {
                // A character that could be taken for the beginning of something else, or a lifetime.
                let mut ahead = rest.clone();
                let escaped = ahead.next() == Some('\\');
                if escaped {
                    ahead.next();
                }
                if ahead.next() == Some('\'') {
                    rest = ahead;
                }
            }
            other => code.push(other),
        }
    }
    code
}

/// How often a source says so, as a word; attributes are not code that does something.
fn count(code: &str, word: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .filter(|(at, _)| {
            let (before, after) = (&code[..*at], &code[at + word.len()..]);
            !before.ends_with(is_word) && !after.starts_with(is_word) && !before.ends_with("#[")
        })
        .count()
}

/// Files under `src` and how often each says `unsafe`.
fn counts() -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    sources(&src(), "", &mut all);
    assert!(all.len() > 30);
    let counts = all.into_iter().map(|(name, source)| (name, count(&code(&source), "unsafe")));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn unsafe_code_is_where_it_may_be() {
    let counts = counts();
    for name in counts.keys() {
        assert!(ALLOWED.iter().any(|allowed| name.starts_with(allowed)), "unsafe in src/{name}");
    }
    assert!(counts["kernel/view.rs"] > 0 && counts["capi/check.rs"] > 0, "{counts:?}");
}

#[test]
fn what_unsafe_code_trusts_is_checked_in_every_build() {
    let mut all = BTreeMap::new();
    sources(&src(), "", &mut all);
    for (name, source) in all.iter().filter(|(name, _)| CHECKED.iter().any(|checked| name.starts_with(checked))) {
        for word in ["debug_assert", "debug_assert_eq", "debug_assert_ne", "debug_assertions"] {
            assert_eq!(count(&code(source), word), 0, "{word} in src/{name}");
        }
    }
}

/// Rows such as ``| `src/kernel/view.rs` | 12 |``.
#[test]
fn the_table_in_the_documentation_is_true() {
    let Ok(text) = std::fs::read_to_string(src().with_file_name("SECURITY.md")) else {
        // Packages leave it out.
        return;
    };
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `src/")?.split('|');
        let name = cells.next()?.trim().strip_suffix('`')?.to_owned();
        Some((name, cells.next()?.trim().parse().ok()?))
    };
    let mut table: BTreeMap<String, usize> = text.lines().filter_map(row).collect();
    // The crate's package leaves the Python package out.
    table.retain(|name, _| !name.starts_with("python/") || src().join("python").exists());
    let counts = counts();
    let wanted: String = counts.iter().map(|(name, count)| format!("| `src/{name}` | {count} |\n")).collect();
    assert!(table == counts, "the table in SECURITY.md should be:\n{wanted}");
}

#[test]
fn words_are_counted_and_comments_are_not() {
    let source = r#"
        // unsafe {}
        /// unsafe
        #[unsafe(no_mangle)]
        unsafe fn f<'a>() { let (_, _) = ("unsafe \" unsafe", '"'); unsafe { g() } }
        #![allow(unsafe_code)]
    "#;
    assert_eq!(count(&code(source), "unsafe"), 2);
}
