//! Jobs of class auto: what they turn out to be, and where that is seen.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::case::{Case, events};

/// The slots of every attempt, in the order in which they started.
fn classes(events: &[Value]) -> Vec<(String, String)> {
    let started = events
        .iter()
        .filter(|event| event["event"] == "job-started");
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    started
        .map(|event| (text(&event["job"]), text(&event["class"])))
        .collect()
}

fn on(classes: &[(String, String)], class: &str) -> usize {
    classes.iter().filter(|(_, is)| is == class).count()
}

/// What jobs source that are to be seen to wait: it sleeps until this shell has spent at most a tenth of its
/// time on a CPU or in want of one, however full the machine is.
const WAITS: &str = "slept=0
for ms in 300 1000 3000 10000 30000 100000; do
    sleep $((ms / 1000)).$((ms % 1000))
    slept=$((slept + ms))
    read -r ran queued _ < /proc/$$/schedstat
    [ $((ran + queued)) -gt $((slept * 100000)) ] || break
done
";

/// A case whose jobs may source `./waits`.
fn waiting(toml: &str) -> Case {
    let case = Case::toml(toml);
    case.write("waits", WAITS);
    case
}

const WAIT: &str = "[limits]\ncpus = 1\nio = 4\n[[job]]\nname = 'wait-{n}'\nclass = 'auto'\n\
    matrix = { n = [1, 2, 3, 4, 5, 6, 7] }\nrun = '. ./waits'\n\
    [[job]]\nname = 'other'\nrun = 'true'\n";

#[test]
fn what_waits_takes_io_slots_from_the_fourth_on() {
    let case = waiting(WAIT);
    let (events, done) = case.events(&["--report", "page.html"]);
    let done = done.expect(0);
    let classes = classes(&events);
    let (others, waits): (Vec<_>, Vec<_>) =
        classes.into_iter().partition(|(job, _)| job == "other");
    assert_eq!(
        others[0].1, "none",
        "only where it is not what the file says"
    );
    assert_eq!(on(&waits[..3], "cpu"), 3, "{waits:?}");
    assert_eq!(on(&waits[3..], "io"), 4, "{waits:?}");
    assert!(
        done.stderr.contains("reiver: wait-{n} waited for ")
            && done.stderr.contains("so 4 attempts took io slots"),
        "{}",
        done.stderr
    );
    let page = case.read("page.html");
    let (_, told) = page.split_once("\"auto\":").expect("what was learnt");
    let told = told.split_once("}]").expect("its end").0.to_owned() + "}]";
    let told: Value = serde_json::from_str(&told).expect("a list");
    let lesson = &told[0];
    assert_eq!(
        (&lesson["name"], &lesson["measured"]),
        (&"wait-{n}".into(), &7.into())
    );
    assert_eq!((&lesson["cpu"], &lesson["io"]), (&3.into(), &4.into()));
    assert!(lesson["waiting"].as_f64().unwrap() > 0.6);
}

#[test]
fn attempts_of_one_job_and_lines_under_one_default_learn_too() {
    let case = waiting(
        "[[job]]\nname = 'again'\nclass = 'auto'\nretries = 3\nrun = '. ./waits; exit 1'\n",
    );
    let (told, done) = case.events(&[]);
    done.expect(1);
    let classes_of_one: Vec<_> = classes(&told).into_iter().map(|(_, class)| class).collect();
    assert_eq!(classes_of_one, ["cpu", "cpu", "cpu", "io"]);

    case.write(
        "list.txt",
        format!("#JOB class=auto\n{}", ". ./waits\n".repeat(6)),
    );
    let done = case.reiver(&["run", "list.txt", "-j1", "--output", "json"]);
    let classes = classes(&events(&done.stdout));
    assert_eq!((on(&classes[..3], "cpu"), on(&classes[3..], "io")), (3, 3));
    let done = done.expect(0);
    assert!(
        done.stderr.contains("reiver: line-2 to line-7 waited"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_run_that_is_resumed_learns_anew() {
    let case = waiting(
        "[limits]\ncpus = 1\n[[job]]\nname = 'w{n}'\nclass = 'auto'\nmatrix = { n = [1, 2, 3, 4, 5] }\n\
         run = '. ./waits; [ {n} -lt 4 ] || [ -e go ]'\n",
    );
    let (told, done) = case.events(&[]);
    done.expect(1);
    assert_eq!(on(&classes(&told), "io"), 2);
    case.write("go", "");
    let (told, done) = case.events(&["--resume"]);
    done.expect(0);
    let classes = classes(&told);
    assert_eq!((classes.len(), on(&classes, "cpu")), (2, 2));
}

/// Processes that compute without end, each in a session of its own, until this is dropped.
struct Spinners(Vec<Child>);

impl Spinners {
    fn start(count: usize) -> Spinners {
        let spinner = |_| {
            let mut command = Command::new("setsid");
            let command = command.args(["sh", "-c", "while :; do :; done"]);
            command.stdin(Stdio::null()).spawn().expect("util-linux")
        };
        Spinners((0..count).map(spinner).collect())
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for spinner in &mut self.0 {
            // It has no end of its own.
            let _ = spinner.kill();
            let _ = spinner.wait();
        }
    }
}

#[test]
fn what_computes_stays_where_it_is_also_on_a_full_machine() {
    if !std::path::Path::new("/proc/self/schedstat").exists() {
        eprintln!("skipped: this kernel does not tell who waits for a CPU");
        return;
    }
    let case = Case::toml(
        "[limits]\ncpus = 1\n[[job]]\nname = 'compute-{n}'\nclass = 'auto'\nmatrix = { n = [1, 2, 3, 4, 5] }\n\
         run = 'i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done'\n",
    );
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let _spinners = Spinners::start(4 * cpus);
    let (told, done) = case.events(&["--report", "page.html"]);
    done.expect(0);
    let classes = classes(&told);
    assert_eq!((classes.len(), on(&classes, "cpu")), (5, 5), "{classes:?}");
}
