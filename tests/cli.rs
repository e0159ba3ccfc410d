//! The program `convrelu` as a user runs it: exit statuses, what it prints, and runs that are killed and go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A directory of its own for a test, removed behind it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("convrelu-cli-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convrelu"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A short run on the bundled digits.
const TRAIN: [&str; 12] = [
    "train",
    "--dataset",
    "digits",
    "--activation",
    "convrelu",
    "--batch",
    "16",
    "--learning-rate",
    "0.02",
    "--threads",
    "1",
    "--epochs",
];

fn train<'a>(epochs: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments: Vec<&str> = TRAIN.to_vec();
    arguments.extend([epochs, "--out", out]);
    arguments.extend(more);
    arguments
}

#[test]
fn table_6_is_counted() {
    let scratch = Scratch::new("table6");
    let out = scratch.path("results");
    for arguments in [&["params"][..], &["experiment", "table6", "--out", &out]] {
        let printed = succeed(arguments);
        for count in ["1,035,268", "1,035,280", "1,035,387", "1,038,184"] {
            assert!(printed.contains(count), "{printed}");
        }
    }
    let all = succeed(&["experiment", "table6", "--out", &out]);
    for count in ["14,728,266", "14,774,436", "11,173,962", "11,220,132"] {
        assert!(all.contains(count), "{all}");
    }
}

#[test]
fn mistakes_have_a_message_and_a_status() {
    let scratch = Scratch::new("mistakes");
    let out = scratch.path("run");
    for (arguments, status, expected) in [
        (vec!["train", "--network", "resnet"], 2, "it must be one of small-cnn"),
        (train("1", &out, &["--label-smoothing", "2"]), 2, "label-smoothing is 2: "),
        (train("1", &out, &["--isa", "mmx"]), 2, "isa is mmx: "),
        (train("1", &out, &["--network", "vgg16"]), 2, "image size is 8×8: vgg16 pools"),
        (vec!["train", "--dataset", "cifar10", "--data", &out], 1, "not found"),
        (vec!["train", "--learning-rate", "1e30", "--epochs", "2", "--out", &out], 1, ""),
        (vec!["train", "--resume", &out, "--seed", "3"], 1, "a run goes on with the settings that it began with"),
        (vec!["eval", "/nonexistent"], 1, "/nonexistent"),
        (vec!["inspect", "/nonexistent"], 1, "/nonexistent"),
        (vec!["experiment", "table9"], 2, "table9"),
    ] {
        let output = run(&arguments);
        let message = text(&output.stderr);
        if expected.is_empty() {
            // Diverged, or a threshold that is no number any more.
            assert!(matches!(output.status.code(), Some(1 | 3)), "{message}");
        } else {
            assert_eq!(output.status.code(), Some(status), "{arguments:?}: {message}");
            assert!(message.contains(expected), "{arguments:?}: {message}");
        }
    }
}

#[test]
fn events_are_lines_of_json() {
    let scratch = Scratch::new("json");
    let out = scratch.path("run");
    let printed = succeed(&train("2", &out, &["--json"]));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 2, "{printed}");
    for line in lines {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        assert!(line.contains("\"event\":\"epoch\"") && line.contains("\"images_per_second\":"), "{line}");
    }
    for file in
        ["config.toml", "metrics.csv", "checkpoint.safetensors", "weights.safetensors", "summary.md", "curves.svg"]
    {
        assert!(Path::new(&out).join(file).exists(), "{file}");
    }
    assert!(succeed(&["eval", &out, "--json"]).contains("\"event\":\"eval\""));
    assert!(succeed(&["inspect", &out]).contains("conv2"));
    let plan = succeed(&train("9", &out, &["--dry-run"]));
    assert!(plan.contains("epochs = 9") && plan.contains("parameters") && plan.contains("s per epoch"), "{plan}");
    let profile = run(&train("1", &scratch.path("profiled"), &["--profile"]));
    assert!(text(&profile.stdout).contains("convolution"));
}

/// Waits until a run has written so many epochs.
fn wait_for(child: &mut Child, directory: &str, epochs: usize) {
    let start = Instant::now();
    loop {
        let lines = fs::read_to_string(Path::new(directory).join("metrics.csv")).unwrap_or_default().lines().count();
        if lines > epochs {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be stopped");
        assert!(start.elapsed() < Duration::from_secs(120), "no epoch in two minutes");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Killed without warning, then interrupted, then finished: the same bits as in one go.
#[test]
#[cfg(unix)]
fn a_killed_run_goes_on_bit_for_bit() {
    let scratch = Scratch::new("kill");
    let (whole, parts) = (scratch.path("whole"), scratch.path("parts"));
    const EPOCHS: &str = "60";
    succeed(&train(EPOCHS, &whole, &[]));

    let mut child = program(&train(EPOCHS, &parts, &[])).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&mut child, &parts, 2);
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());

    let resume = ["train", "--resume", &parts, "--threads", "2"];
    let before = fs::read_to_string(Path::new(&parts).join("metrics.csv")).unwrap().lines().count() - 1;
    let mut child = program(&resume).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_for(&mut child, &parts, before + 2);
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let leftovers = fs::read_dir(&parts)
        .unwrap()
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".partial")));
    // What the kill left half-written lies under another name; the interruption leaves nothing.
    assert!(leftovers.count() <= 1);

    succeed(&resume);
    let weights = |run: &str| fs::read(Path::new(run).join("weights.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&parts), "the weights differ");
    let results = |run: &str| {
        let lines = fs::read_to_string(Path::new(run).join("metrics.csv")).unwrap();
        let fields = |line: &str| line.split(',').take(6).map(str::to_owned).collect::<Vec<_>>();
        lines.lines().map(fields).collect::<Vec<_>>()
    };
    assert_eq!(results(&whole), results(&parts));
}
