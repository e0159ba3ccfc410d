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
    let [params, table] = [&["params"][..], &["experiment", "table6", "--out", &out]].map(succeed);
    for count in ["1,035,268", "1,035,280", "1,035,387", "1,038,184"] {
        assert!(params.contains(count) && table.contains(count), "{params}\n{table}");
    }
    for count in ["14,728,266", "14,774,436", "11,173,962", "11,220,132"] {
        assert!(table.contains(count), "{table}");
    }
    let file = |end: &str| Path::new(&out).join(format!("table6-densenet-cifar.{end}"));
    let (page, lines) = (fs::read_to_string(file("html")).unwrap(), csv_of(&file("csv")));
    assert_needs_nothing_else(&page);
    let results = table_of(&page, "results");
    assert_eq!((results.len(), lines.len()), (6, 6));
    for (cells, line) in results.iter().zip(&lines) {
        let count: f64 = line["parameters"].parse().unwrap();
        assert_eq!([&cells[0], &line["paper"]], [&line["row"], &line["parameters"]]);
        assert!(holds(&cells[1], &[count]) && holds(&cells[3], &[count]), "{cells:?}");
    }
    assert_eq!(table_of(&page, "others").len(), 4);
    assert!(page.contains("<pre id=\"command\">convrelu experiment table6 --out "), "{page}");

    // The paper has no counts of a network of another size, which gets files of its own.
    let other = succeed(&["experiment", "table6", "--growth", "4", "--out", &out]);
    assert!(other.contains("growth 4, 100 classes") && !other.contains("1,035,268"), "{other}");
    let page = fs::read_to_string(Path::new(&out).join("table6-densenet-cifar-growth4.html")).unwrap();
    assert!(page.contains("The paper has no counts of this network.") && table_of(&page, "results")[0][3] == "–");
}

#[test]
fn mistakes_have_a_message_and_a_status() {
    let scratch = Scratch::new("mistakes");
    let (out, broken) = (scratch.path("run"), scratch.path("broken.toml"));
    fs::write(&broken, "sauce = 1\n").unwrap();
    for (arguments, status, expected) in [
        (vec!["train", "--network", "resnet"], 2, "it must be one of small-cnn"),
        (train("1", &out, &["--label-smoothing", "2"]), 2, "--label-smoothing 2: "),
        (train("1", &out, &["--isa", "mmx"]), 2, "--isa mmx: "),
        (train("1", &out, &["--isa", unavailable()]), 2, "this CPU, system or build does not offer it"),
        (
            train("1", &out, &["--network", "vgg16"]),
            2,
            "--network vgg16: it pools, so images must have at least 32 × 32",
        ),
        (vec!["train", "--network", "densenet40", "--batch", "1"], 2, "--batch 1: densenet40 normalises"),
        (train("1", &out, &["--growth", "4"]), 2, "--growth 4: the network small-cnn has no such setting"),
        (
            vec!["train", "--activation", "relu", "--threshold-init", "glorot"],
            2,
            "--threshold-init glorot: the activation relu has no such setting",
        ),
        (
            vec!["train", "--activation", "relu", "--threshold-decay", "0.1"],
            2,
            "--threshold-decay 0.1: the activation relu has no thresholds",
        ),
        (train("1", &out, &["--milestones", "3,2"]), 2, "--milestones 3,2: each must be greater than the one before"),
        (train("1", &out, &["--length", "5"]), 2, "--length 5: the data set digits is not text"),
        (train("1", &out, &["--encoding", "foo"]), 2, "invalid value 'foo' for '--encoding"),
        (train("1", &out, &["--resize", "8x8"]), 2, "--resize 8x8: only images in folders are resized"),
        (train("1", &out, &["--data", "d"]), 2, "--data d: the data set digits needs no files"),
        (train("1", &out, &["--config", "/nonexistent"]), 2, "--config /nonexistent: "),
        (train("1", &out, &["--config", &broken]), 2, "line 1: unknown field `sauce`"),
        (train("1", &out, &["--init-from", &broken]), 2, "--init-from checkpoint "),
        (vec!["experiment", "table1", "--growth", "4", "--network", "vgg16"], 2, "--growth 4: no network"),
        (vec!["train", "--dataset", "cifar10", "--data", &out], 1, "not found"),
        (vec!["train", "--learning-rate", "1e30", "--epochs", "2", "--out", &out], 3, "training diverged in epoch 1"),
        (vec!["train", "--resume", &out, "--seed", "3"], 2, "a run continues with the settings that it began with"),
        (vec!["train", "--resume", &out, "--epochs", "1"], 2, "--epochs may grow"),
        (vec!["train", "--resume", "/nonexistent"], 2, "--resume /nonexistent: "),
        (vec!["eval", "/nonexistent"], 2, "RUN /nonexistent: it holds no run"),
        (vec!["eval", &out, "--weights", "/nonexistent"], 2, "--weights /nonexistent: "),
        (vec!["inspect", "/nonexistent"], 2, "RUN /nonexistent: "),
        (vec!["experiment", "table9"], 2, "table9"),
        (
            vec!["experiment", "table1", "--rows", "ReLU,Swish"],
            2,
            "--rows Swish: each must be one of ReLU, LeakyReLU, LeakyReLU(A), PReLU, PReLU(A), ConvReLU",
        ),
        (vec!["experiment", "table6", "--rows", "Swish"], 2, "--rows Swish: each must be one of ReLU, "),
    ] {
        let output = run(&arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {message}");
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
}

/// An instruction set that this machine does not have.
fn unavailable() -> &'static str {
    if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" }
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

/// Epochs that a run has written.
fn epochs(directory: &str) -> usize {
    let lines = fs::read_to_string(Path::new(directory).join("metrics.csv")).unwrap_or_default().lines().count();
    lines.saturating_sub(1)
}

/// Waits until a run has written so many epochs.
fn wait_for(child: &mut Child, directory: &str, least: usize) {
    let start = Instant::now();
    while epochs(directory) < least {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be stopped");
        assert!(start.elapsed() < Duration::from_secs(120), "no epoch in two minutes");
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Epochs that a run which is stopped from outside will not finish.
#[cfg(unix)]
const ENDLESS: &str = "100000";

#[test]
#[cfg(unix)]
fn a_signal_that_was_ignored_stays_ignored() {
    let scratch = Scratch::new("nohup");
    let out = scratch.path("run");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_convrelu")]);
    command.args(train(ENDLESS, &out, &["--limit", "64"])).stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    wait_for(&mut child, &out, 1);
    send("-HUP", &child);
    wait_for(&mut child, &out, epochs(&out) + 3);
    send("-TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // One that was not ends the run.
    let mut child = program(&["train", "--resume", &out]).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&mut child, &out, epochs(&out) + 1);
    send("-HUP", &child);
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(120) {
            send("-KILL", &child);
            panic!("SIGHUP did not end the run: are the tests themselves running under nohup, which ignores it?");
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// A reader that has gone away, and a full disk.
#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_shown_ends_nothing() {
    let scratch = Scratch::new("writers");
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let gone = || std::io::pipe().unwrap().1;
    let code = |child: &mut Command| child.status().unwrap().code();
    let finished = |out: &str| Path::new(out).join("summary.md").exists();
    for (name, stderr) in [("full", Stdio::from(full())), ("gone", Stdio::from(gone()))] {
        let out = scratch.path(name);
        let arguments = train("2", &out, &["-vv"]);
        assert_eq!(code(program(&arguments).stderr(stderr).stdout(Stdio::null())), Some(0), "{name}");
        assert!(finished(&out));
    }
    // What was asked for on standard output is missing: the work is done all the same.
    for (name, stdout) in [("out-full", Stdio::from(full())), ("out-gone", Stdio::from(gone()))] {
        let out = scratch.path(name);
        let output = program(&train("2", &out, &["--json"])).stdout(stdout).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(text(&output.stderr).contains("convrelu: standard output: "), "{}", text(&output.stderr));
        assert!(finished(&out));
    }
    for arguments in [&["isa"][..], &["params", "--network", "small-cnn"], &["train", "--dry-run"]] {
        let status = code(program(arguments).stdout(full()).stderr(full()));
        assert_eq!(status, Some(1), "{arguments:?}");
    }
    let status = code(program(&["train", "--isa", "mmx"]).stderr(full()));
    assert_eq!(status, Some(2));
}

/// A file that never comes: a named pipe that nobody writes.
#[test]
#[cfg(unix)]
fn a_signal_ends_loading_within_a_second() {
    let scratch = Scratch::new("loading");
    let (data, out) = (scratch.path("data"), scratch.path("run"));
    fs::create_dir_all(&data).unwrap();
    assert!(Command::new("mkfifo").arg(format!("{data}/train.csv")).status().unwrap().success());
    let arguments = ["train", "--dataset", "ag-news", "--network", "text-cnn", "--data", &data, "--out", &out];
    let mut child = program(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none());
    let start = Instant::now();
    send("-TERM", &child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    assert!(text(&output.stderr).contains("interrupted while data are loaded"), "{}", text(&output.stderr));
    assert!(!Path::new(&out).exists());
}

#[test]
fn a_run_that_diverges_at_its_end_says_so() {
    let scratch = Scratch::new("diverged");
    let out = scratch.path("run");
    // One step, whose loss is still a number: what it makes of the weights is not.
    let arguments = ["train", "--learning-rate", "1e9", "--epochs", "1", "--batch", "1300", "--out", &out];
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("training diverged in epoch 1"), "{}", text(&output.stderr));
    for file in ["weights.safetensors", "checkpoint.safetensors", "summary.md"] {
        assert!(!Path::new(&out).join(file).exists(), "{file}");
    }
    let arguments = ["experiment", "figure6", "--dataset", "digits", "--network", "small-cnn", "--seeds", "1"];
    let more = ["--learning-rate", "1e9", "--epochs", "1", "--batch", "1300", "--out", &out];
    let table = succeed(&[&arguments[..], &more].concat());
    assert!(table.contains("diverged") && !table.contains("0.00"), "{table}");
}

#[test]
#[cfg(unix)]
fn one_process_at_a_time_writes_a_run() {
    let scratch = Scratch::new("lock");
    let out = scratch.path("run");
    let mut first = program(&train(ENDLESS, &out, &["--limit", "64"])).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&mut first, &out, 1);
    for arguments in [vec!["train", "--resume", &out], train("1", &out, &[])] {
        let output = run(&arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(&format!("process {} writes the run in {out}", first.id())), "{message}");
    }
    // Readers do not disturb it.
    assert!(succeed(&["eval", &out]).contains("test"));
    first.kill().unwrap();
    first.wait().unwrap();
    let mut second = program(&["train", "--resume", &out]).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&mut second, &out, epochs(&out) + 1);
    send("-TERM", &second);
    assert_eq!(second.wait().unwrap().code(), Some(130));
}

#[test]
#[cfg(target_os = "linux")]
fn paths_need_not_be_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let scratch = Scratch::new("paths");
    let path = |name: &[u8]| scratch.0.join(OsStr::from_bytes(name));
    let (out, data) = (path(b"run\xff"), path(b"data\xff"));
    let mut arguments = train("1", "", &[]);
    arguments.truncate(arguments.len() - 1);
    let output = program(&arguments).arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for command in ["eval", "inspect"] {
        let output = program(&[command]).arg(&out).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // The configuration names it, and is text.
    fs::create_dir_all(&data).unwrap();
    let output = program(&["train", "--dataset", "cifar10", "--data"]).arg(&data).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("it must be UTF-8, because the configuration"), "{message}");
    let mut experiment = program(&["experiment", "figure6", "--dataset", "digits", "--network", "small-cnn"]);
    experiment.args(["--epochs", "1", "--seeds", "1", "--limit", "32", "--test-limit", "9", "--json", "--out"]);
    let output = experiment.arg(path(b"results\xff")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = text(&output.stdout);
    assert!(lines.lines().count() == 2 && lines.contains("\"event\":\"table\""), "{lines}");
}

#[test]
fn files_have_no_colours() {
    let scratch = Scratch::new("colours");
    let output = run(&train("1", &scratch.path("run"), &["-vv"]));
    let message = text(&output.stderr);
    assert!(output.status.success() && message.contains("INFO loaded digits"), "{message}");
    assert!(!message.contains('\u{1b}'), "{message}");
}

/// An image of one colour for each class and part.
fn images(folder: &Path) {
    for (class, colour) in [("cat", [255, 0, 0]), ("dog", [0, 0, 255])] {
        for name in ["train/{}/a.png", "train/{}/b.webp", "train/{}/c.bmp", "val/{}/a.png"] {
            let path = folder.join(name.replace("{}", class));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::from_pixel(8, 8, image::Rgb(colour)).save(path).unwrap();
        }
    }
}

#[test]
fn other_data_than_those_of_the_run_are_refused() {
    let scratch = Scratch::new("data");
    let (data, out) = (scratch.path("images"), scratch.path("run"));
    images(Path::new(&data));
    fs::write(Path::new(&data).join("train/cat/notes.txt"), "no image").unwrap();
    let arguments = ["train", "--dataset", "image-folder", "--data", &data, "--epochs", "2", "--batch", "2"];
    let output = run(&[&arguments[..], &["--learning-rate", "0.01", "--out", &out]].concat());
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("train: skipped 1 files that are not images (.txt: 1)"), "{message}");
    let refused = |expected: &str| {
        for arguments in
            [&["eval", &out][..], &["train", "--resume", &out], &["train", "--resume", &out, "--epochs", "3"]]
        {
            let output = run(arguments);
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
            assert!(message.contains(expected), "{arguments:?}: {message}");
        }
    };
    assert!(succeed(&["eval", &out]).contains("test"));
    assert!(succeed(&["eval", &out, "--test-limit", "1"]).contains("test"));
    fs::remove_file(Path::new(&data).join("train/dog/b.webp")).unwrap();
    refused("the run has 6 training examples, these data have 5");
    images(Path::new(&data));
    for part in ["train", "val"] {
        let folder = |class: &str| Path::new(&data).join(part).join(class);
        fs::rename(folder("dog"), folder("emu")).unwrap();
    }
    refused("class 1 of the run is 'dog', of these data 'emu'");
}

#[test]
fn words_keep_the_numbers_of_the_run() {
    let scratch = Scratch::new("words");
    let (data, out) = (scratch.path("news"), scratch.path("run"));
    fs::create_dir_all(&data).unwrap();
    let row = |i: usize| format!("{},word{} and word{}\n", i % 4 + 1, i, i / 2);
    let rows = |count: usize| (0..count).map(row).collect::<String>();
    fs::write(Path::new(&data).join("train.csv"), rows(12)).unwrap();
    fs::write(Path::new(&data).join("test.csv"), rows(6)).unwrap();
    let arguments = ["train", "--dataset", "ag-news", "--data", &data, "--encoding", "words", "--length", "32"];
    let network = ["--network", "text-cnn", "--features", "4", "--units", "4", "--embedding", "4"];
    let rest = ["--epochs", "1", "--batch", "4", "--threads", "1", "--out", &out];
    succeed(&[&arguments[..], &network, &rest].concat());
    let accuracy = |more: &[&str]| succeed(&[&["eval", &out, "--json"][..], more].concat());
    // With another part of the training data, words keep their numbers: the result is the same.
    assert_eq!(accuracy(&[]), accuracy(&["--limit", "3"]));
    fs::write(Path::new(&data).join("train.csv"), rows(12).replace("and", "or")).unwrap();
    let (weights, other) = (format!("{out}/weights.safetensors"), scratch.path("other"));
    let begun = ["--epochs", "1", "--threads", "1", "--out", &other, "--init-from", &weights];
    let output = run(&[&arguments[..], &network, &begun].concat());
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("its run numbers the words in another way than these data do"), "{message}");
    let output = run(&["eval", &out]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("word 0 of the run is 'and', of these data 'or'"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn networks_are_exported_whole_or_not_at_all() {
    let scratch = Scratch::new("export");
    let (out, onnx) = (scratch.path("run"), scratch.path("model.onnx"));
    succeed(&train("1", &out, &[]));
    let printed = succeed(&["export", &out, "--onnx", &onnx]);
    assert!(printed.contains("opset 17, 10 nodes, 2 of them ConvReLU"), "{printed}");
    let whole = fs::read(&onnx).unwrap();
    // A run that does not know what it reads, as an earlier version wrote it, is exported with its data at hand.
    let (data, checkpoint) = (format!("{out}/data.json"), format!("{out}/checkpoint.safetensors"));
    let (inventory, state) = (fs::read_to_string(&data).unwrap(), fs::read(&checkpoint).unwrap());
    let (start, end) = (inventory.find(",\"example\":").unwrap(), inventory.rfind('}').unwrap());
    fs::write(&data, format!("{}{}", &inventory[..start], &inventory[end..])).unwrap();
    succeed(&["export", &out, "--onnx", &onnx]);
    assert_eq!(fs::read(&onnx).unwrap(), whole);
    fs::write(&data, &inventory).unwrap();

    let (empty, other) = (scratch.path("empty"), scratch.path("other"));
    fs::create_dir_all(&empty).unwrap();
    let refused = |arguments: &[&str], status: i32, expected: &str| {
        let output = run(&[&["export"], arguments].concat());
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {message}");
        assert!(message.contains(expected), "{arguments:?}: {message}");
        assert_eq!(fs::read(&onnx).unwrap(), whole);
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 3, "{arguments:?}");
    };
    refused(&["/nonexistent", "--onnx", &onnx], 2, "RUN /nonexistent: it holds no run: ");
    refused(&[&empty, "--onnx", &onnx], 2, "it holds no run: ");
    refused(&[&out], 2, "--onnx <FILE>");
    refused(&[&out, "--onnx", &empty], 2, "it is a folder, it must be the name of a file");
    refused(&[&out, "--onnx", &format!("{other}/model.onnx")], 2, &format!("--onnx {other}/model.onnx: "));
    refused(&[&out, "--onnx", &format!("{onnx}/model.onnx")], 2, &format!("--onnx {onnx}/model.onnx: "));
    refused(&[&out, "--onnx", &onnx, "--weights", "/nonexistent"], 2, "--weights /nonexistent: ");
    fs::write(&data, "{").unwrap();
    refused(&[&out, "--onnx", &onnx], 1, "data.json: ");
    fs::write(&data, &inventory).unwrap();
    fs::write(&checkpoint, &state[..state.len() / 2]).unwrap();
    refused(&[&out, "--onnx", &onnx], 1, "it is damaged or not a safetensors file");
    fs::remove_file(&checkpoint).unwrap();
    refused(&[&out, "--onnx", &onnx], 1, "checkpoint.safetensors: ");
    fs::write(format!("{out}/config.toml"), "[model]\nnetwork = \"resnet18\"\n").unwrap();
    fs::write(&checkpoint, &state).unwrap();
    refused(&[&out, "--onnx", &onnx], 1, "it must be F32 of 64 × 1 × 3 × 3");
}

#[test]
fn logits_are_written_for_every_example() {
    let scratch = Scratch::new("logits");
    let (out, table) = (scratch.path("run"), scratch.path("logits.csv"));
    succeed(&train("1", &out, &[]));
    let accuracy = |more: &[&str]| {
        let printed = succeed(&[&["eval", &out, "--json", "--logits", &table], more].concat());
        let value = printed.split("\"accuracy\":").nth(1).unwrap().split([',', '}']).next().unwrap();
        value.parse::<f64>().unwrap()
    };
    for (more, examples) in [(&[][..], 497), (&["--test-limit", "9"], 9), (&["--on-train"], 1300)] {
        let expected = accuracy(more);
        let written = fs::read_to_string(&table).unwrap();
        let rows: Vec<Vec<&str>> = written.lines().skip(1).map(|line| line.split(',').collect()).collect();
        assert_eq!(rows.len(), examples);
        assert!(rows.iter().enumerate().all(|(at, row)| row.len() == 13 && row[0] == at.to_string()));
        let right = rows.iter().filter(|row| row[1] == row[2]).count();
        assert_eq!(right as f64 / examples as f64, expected);
    }
    for (path, rule) in [(&scratch.path("")[..], "it is a folder"), ("/nonexistent/logits.csv", "")] {
        let output = run(&["eval", &out, "--logits", path]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(&format!("--logits {path}: {rule}")), "{message}");
    }
}

#[test]
fn runs_can_be_longer_and_begin_with_given_weights() {
    let scratch = Scratch::new("longer");
    let (out, whole, other) = (scratch.path("run"), scratch.path("whole"), scratch.path("other"));
    let cosine = ["--cosine", "--limit", "200"];
    succeed(&train("2", &out, &cosine));
    succeed(&["train", "--resume", &out, "--epochs", "4"]);
    succeed(&train("4", &whole, &cosine));
    let column = |run: &str, column: usize| -> Vec<String> {
        let lines = fs::read_to_string(Path::new(run).join("metrics.csv")).unwrap();
        lines.lines().skip(1).map(|line| line.split(',').nth(column).unwrap().to_owned()).collect()
    };
    // What is left has the learning rates of the longer run.
    assert_eq!(column(&out, 5)[2..], column(&whole, 5)[2..]);
    assert_ne!(column(&out, 5)[1], column(&whole, 5)[1]);
    let weights = format!("{out}/weights.safetensors");
    let still = ["train", "--activation", "convrelu", "--learning-rate", "0", "--batch", "16", "--epochs", "1"];
    succeed(&[&still[..], &["--limit", "200", "--seed", "9", "--out", &other, "--init-from", &weights]].concat());
    let eval = |run: &str| succeed(&["eval", run, "--json"]);
    assert_eq!(eval(&out), eval(&other));
}

#[test]
fn words_for_people_fit_their_terminal() {
    let plan = succeed(&["train", "--dry-run"]);
    assert!(plan.contains("1300 training and 497 test examples of 1 × 8 × 8 in 10 classes"), "{plan}");
    let scratch = Scratch::new("narrow");
    let out = scratch.path("run");
    let short = run(&train("1", &out, &[]));
    let list = ["experiment", "table1", "--list", "--out", &out];
    for arguments in [
        &["--help"][..],
        &["train", "--help"],
        &["experiment", "--help"],
        &["export", "--help"],
        &["eval", "--help"],
        &["eval", &out],
        &["inspect", &out],
    ] {
        let printed = text(&program(arguments).env("COLUMNS", "80").output().unwrap().stdout);
        let long: Vec<_> = printed.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(!printed.is_empty() && long.is_empty(), "{arguments:?}: {long:?}");
    }
    for printed in [&plan, &text(&short.stdout)] {
        let long: Vec<_> = printed.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{long:?}");
    }
    let narrow = text(&program(&list).env("COLUMNS", "40").output().unwrap().stdout);
    assert!(narrow.lines().any(|line| line.starts_with("  activation ")), "{narrow}");
    for name in ["digits", "tiny-imagenet", "yelp-full", "densenet-cifar", "convrelu"] {
        assert!(succeed(&["train", "--help"]).contains(name), "{name}");
    }
}

/// The rows of a table of a page, by its id; without the head.
fn table_of(page: &str, id: &str) -> Vec<Vec<String>> {
    let table = page.split(&format!("<table id=\"{id}\"")).nth(1).unwrap_or_else(|| panic!("no table {id}"));
    let body = table.split("<tbody>").nth(1).unwrap().split("</tbody>").next().unwrap();
    let cells =
        |row: &str| row.split("<td>").skip(1).map(|cell| cell.split("</td>").next().unwrap().to_owned()).collect();
    body.split("<tr>").skip(1).map(cells).collect()
}

/// The lines of a CSV file, by the names of its columns.
fn csv_of(path: &Path) -> Vec<std::collections::HashMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

/// Nothing is fetched: there are no addresses but an empty icon.
fn assert_needs_nothing_else(page: &str) {
    for part in ["http:", "https:", "//", "src=", "url(", "@import", "<script", "<iframe", "<object"] {
        assert!(!page.contains(part), "{part}");
    }
    assert_eq!(page.matches("href=").count(), page.matches("href=\"data:,\"").count());
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("default-src 'none'"));
}

/// Whether a cell holds these numbers, as exactly as it is written.
fn holds(cell: &str, expected: &[f64]) -> bool {
    let numbers: Vec<&str> = cell.split(' ').filter(|word| !["±", "to"].contains(word)).collect();
    numbers.len() == expected.len()
        && numbers.iter().zip(expected).all(|(text, expected)| {
            let decimals = text.split('.').nth(1).map_or(0, str::len);
            let value: f64 = text.replace(',', "").parse().unwrap_or_else(|_| panic!("{cell}"));
            (value - expected).abs() <= 0.5 * 10.0_f64.powi(-(decimals as i32)) + 1e-6
        })
}

fn mean_and_deviation(values: &[f64]) -> [f64; 2] {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    [mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt()]
}

#[test]
fn reports_are_whole_and_show_the_numbers_of_their_csv() {
    let scratch = Scratch::new("report");
    let out = scratch.path("a & b");
    let rows = ["ReLU", "ConvReLU"];
    let arguments =
        ["experiment", "table1", "--rows", "ConvReLU,ReLU", "--dataset", "digits", "--network", "small-cnn"];
    let short = ["--epochs", "2", "--seeds", "3", "--limit", "160", "--test-limit", "99", "--batch", "16"];
    let rest = ["--learning-rate", "0.02", "--out", &out];
    let arguments = [&arguments[..], &short, &rest].concat();
    let printed = succeed(&arguments);
    assert!(printed.contains("ConvReLU − ReLU: ") && !printed.contains("PReLU"), "{printed}");
    let file = |end: &str| Path::new(&out).join(format!("table1-digits-small-cnn-relu-convrelu{end}"));
    let page = fs::read_to_string(file(".html")).unwrap();

    assert_needs_nothing_else(&page);
    // What a user has named is text, also if it looks like an element.
    assert!(!page.contains("a & b") && page.contains("a &amp; b"), "{out}");

    let number = |line: &std::collections::HashMap<String, String>, column: &str| line[column].parse::<f64>().unwrap();
    let finals = csv_of(&file(".csv"));
    let accuracies = |row: &str| -> Vec<f64> {
        finals.iter().filter(|line| line["row"] == row).map(|line| 100.0 * number(line, "test_accuracy")).collect()
    };
    let results = table_of(&page, "results");
    assert_eq!(results.len(), 2);
    for (cells, row) in results.iter().zip(rows) {
        let line = finals.iter().find(|line| line["row"] == row).unwrap();
        assert_eq!(cells[0], row);
        assert!(holds(&cells[1], &mean_and_deviation(&accuracies(row))), "{cells:?}");
        assert!(holds(&cells[2], &[3.0]) && holds(&cells[3], &[number(line, "paper")]), "{cells:?}");
        assert!(holds(&cells[4], &[number(line, "parameters")]), "{cells:?}");
    }

    let pairs: Vec<f64> =
        accuracies("ConvReLU").iter().zip(accuracies("ReLU")).map(|(one, other)| one - other).collect();
    let [mean, deviation] = mean_and_deviation(&pairs);
    let (error, quantile) = (deviation / 3.0_f64.sqrt(), 4.303);
    let expected = [mean, error, mean - quantile * error, mean + quantile * error];
    let (differences, lines) = (table_of(&page, "differences"), csv_of(&file("-differences.csv")));
    assert_eq!((differences.len(), lines.len()), (1, 1));
    for (column, expected) in ["mean", "error", "interval95_from", "interval95_to"].into_iter().zip(expected) {
        assert!((number(&lines[0], column) - expected).abs() < 1e-6, "{column} is not {expected}");
    }
    assert_eq!(differences[0][0], "ConvReLU − ReLU");
    assert!(holds(&differences[0][1], &expected[..1]) && holds(&differences[0][2], &expected[1..2]), "{differences:?}");
    assert!(holds(&differences[0][3], &expected[2..]) && holds(&differences[0][4], &[3.0]), "{differences:?}");

    let epochs = csv_of(&file("-epochs.csv"));
    let shown = table_of(&page, "epochs");
    assert_eq!((epochs.len(), shown.len()), (2 * 3 * 2, 2 * 2));
    for cells in &shown {
        let lines: Vec<_> =
            epochs.iter().filter(|line| [&line["row"], &line["epoch"]] == [&cells[0], &cells[1]]).collect();
        let spread = |value: &dyn Fn(&std::collections::HashMap<String, String>) -> f64| {
            mean_and_deviation(&lines.iter().map(|line| value(line)).collect::<Vec<_>>())
        };
        assert!(holds(&cells[2], &[3.0]) && holds(&cells[3], &spread(&|line| number(line, "loss"))), "{cells:?}");
        assert!(holds(&cells[4], &spread(&|line| number(line, "test_loss"))), "{cells:?}");
        assert!(holds(&cells[5], &spread(&|line| 100.0 * number(line, "test_accuracy"))), "{cells:?}");
        let dead = |line: &std::collections::HashMap<String, String>| {
            100.0 * number(line, "dead_units") / number(line, "units")
        };
        assert!(holds(&cells[6], &spread(&dead)), "{cells:?}");
    }
    let runs = table_of(&page, "runs");
    assert_eq!(runs.len(), 6);
    for cells in &runs {
        let of_run =
            |line: &&std::collections::HashMap<String, String>| [&line["row"], &line["seed"]] == [&cells[0], &cells[1]];
        let lines: Vec<_> = epochs.iter().filter(of_run).collect();
        let last = lines.last().unwrap();
        assert!(holds(&cells[2], &[lines.len() as f64]) && holds(&cells[3], &[number(last, "loss")]), "{cells:?}");
        assert!(holds(&cells[4], &[number(last, "test_loss")]), "{cells:?}");
        assert!(holds(&cells[5], &[100.0 * number(last, "test_accuracy")]), "{cells:?}");
        assert!(holds(&cells[6], &[100.0 * number(last, "dead_units") / number(last, "units")]), "{cells:?}");
        assert!(holds(&cells[7], &[lines.iter().map(|line| number(line, "seconds")).sum()]), "{cells:?}");
        assert!(holds(&cells[8], &[number(last, "images_per_second")]), "{cells:?}");
    }

    // The layers of an epoch have all its units.
    let units = csv_of(&file("-units.csv"));
    for line in &epochs {
        let of_epoch = |other: &&std::collections::HashMap<String, String>| {
            ["row", "seed", "epoch"].iter().all(|column| other[*column] == line[*column])
        };
        let sum = |column: &str| units.iter().filter(of_epoch).map(|line| number(line, column)).sum::<f64>();
        assert_eq!([sum("dead"), sum("total")], [number(line, "dead_units"), number(line, "units")]);
    }
    let dead = table_of(&page, "dead");
    assert_eq!(dead.len(), 2 * 4, "{dead:?}");
    for cells in &dead {
        let last = units
            .iter()
            .filter(|line| [&line["row"], &line["layer"]] == [&cells[0], &cells[1]] && line["epoch"] == "2");
        let lines: Vec<_> = last.collect();
        let shares: Vec<f64> = lines.iter().map(|line| 100.0 * number(line, "dead") / number(line, "total")).collect();
        assert!(
            holds(&cells[2], &[number(lines[0], "total")]) && holds(&cells[3], &mean_and_deviation(&shares)),
            "{cells:?}"
        );
    }
    let (thresholds, lines) = (table_of(&page, "thresholds-1"), csv_of(&file("-thresholds.csv")));
    assert_eq!((thresholds.len(), lines.len()), (3, 3), "{thresholds:?}");
    for (cells, line) in thresholds.iter().zip(&lines) {
        assert_eq!((line["row"].as_str(), &cells[0]), ("ConvReLU", &line["layer"]));
        for (cell, column) in cells[1..].iter().zip(["thresholds", "mean", "deviation", "least", "greatest"]) {
            assert!(holds(cell, &[number(line, column)]), "{column}: {cells:?}");
        }
        assert!(holds(&cells[6], &[100.0 * number(line, "zeros") / number(line, "thresholds")]), "{cells:?}");
    }

    // Written again from runs that a version without units of layers trained.
    let checkpoints = fs::read_dir(Path::new(&out).join("runs"))
        .unwrap()
        .map(|run| run.unwrap().path().join("checkpoint.safetensors"));
    for path in checkpoints {
        let mut bytes = fs::read(&path).unwrap();
        let (key, other) = (b"units_by_layer", b"other_of_layer");
        let places: Vec<_> = (0..bytes.len() - key.len()).filter(|&at| bytes[at..].starts_with(key)).collect();
        assert_eq!(places.len(), 2);
        places.into_iter().for_each(|at| bytes[at..at + key.len()].copy_from_slice(other));
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(succeed(&arguments), printed);
    let old = fs::read_to_string(file(".html")).unwrap();
    assert!(old.contains("recorded the dead units of whole networks only") && table_of(&old, "epochs") == shown);
    assert!(!file("-units.csv").exists());
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
    let before = epochs(&parts);
    let mut child = program(&resume).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_for(&mut child, &parts, before + 2);
    // Not SIGINT: whoever runs the tests in the background may have it ignored.
    send("-TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let leftovers = fs::read_dir(&parts)
        .unwrap()
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".partial")));
    // What the kill left half-written, under another name, is removed by the run that goes on.
    assert_eq!(leftovers.count(), 0);

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
