//! What is left of a run for people and programs that look later: a page, a trace.

use serde_json::Value;

use crate::case::Case;

const JOBS: &str = "[limits]\ncpus = 2\n\
    [[job]]\nname = 'a'\nrun = 'sleep 0.05'\n\
    [[job]]\nname = 'b'\nclass = 'io'\nrun = 'sleep 0.05'\n\
    [[job]]\nname = '</script><b>'\nneeds = ['a']\nretries = 1\n\
    run = 'echo \"out <!-- </script>\"; printf \"\\377\" >&2; exit 7'\n\
    [[job]]\nname = 'hangs'\nneeds = ['a']\nrun = 'true'\n\
    [[job]]\nname = 'after'\nneeds = [{ job = '</script><b>', when = 'failure' }]\nrun = 'sleep 0.5'\n\
    [[job]]\nname = 'never'\nneeds = ['</script><b>']\nrun = 'true'\n\
    [[job]]\nname = 'nowhere'\ncommand = ['/no/such']\n";

/// What the page knows of its run.
fn told(page: &str) -> Value {
    let begin = "<script type=\"application/json\" id=\"run\">";
    let (_, rest) = page.split_once(begin).expect("the run");
    let (run, _) = rest.split_once("</script>").expect("its end");
    serde_json::from_str(run).unwrap_or_else(|error| panic!("{run}: {error}"))
}

#[test]
fn the_page_holds_the_run_and_fetches_nothing() {
    let case = Case::toml(JOBS);
    let done = case.reiver(&["run", "jobs.toml", "--report", "page.html"]);
    done.expect(1);
    let page = case.read("page.html");
    for fetches in ["http://", "https://", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(fetches), "{fetches}");
    }
    let run = told(&page);
    assert_eq!(run["jobs"], serde_json::json!([4, 2, 0, 1]));
    assert_eq!(
        (&run["exit"], &run["name"]),
        (&1.into(), &"jobs.toml".into())
    );
    // The one that never got a process has no bar, the one that was tried twice two.
    assert_eq!(run["bars"].as_array().unwrap().len(), 6);
    let path = run["path"].as_array().unwrap();
    let path: Vec<&str> = path
        .iter()
        .map(|job| job["name"].as_str().unwrap())
        .collect();
    assert_eq!(path, ["a", "</script><b>", "after"]);
    let failures = run["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 2);
    let failed = failures
        .iter()
        .find(|failure| failure["name"] == "</script><b>")
        .unwrap();
    assert_eq!(failed["why"], "exit code 7");
    assert_eq!(failed["stdout"], "out <!-- </script>\n");
    assert_eq!(failed["stderr"], "\u{fffd}");
}

#[test]
fn bars_of_one_row_never_overlap_and_rows_are_no_more_than_slots() {
    let case = Case::new();
    case.write("list.txt", "/bin/true\n".repeat(300));
    let done = case.reiver(&["run", "list.txt", "-j3", "--report", "page.html"]);
    done.expect(0);
    let run = told(&case.read("page.html"));
    assert!(
        run["lanes"][0][1].as_u64().unwrap() <= 3,
        "{}",
        run["lanes"]
    );
    let numbers = |bar: &Value| [2, 3, 4].map(|place: usize| bar[place].as_u64().unwrap());
    let mut bars: Vec<[u64; 3]> = run["bars"]
        .as_array()
        .unwrap()
        .iter()
        .map(numbers)
        .collect();
    assert_eq!(bars.len(), 300);
    bars.sort_unstable();
    for pair in bars.windows(2).filter(|pair| pair[0][0] == pair[1][0]) {
        // Rounded to microseconds, each by itself.
        assert!(pair[0][1] + pair[0][2] <= pair[1][1] + 1, "{pair:?}");
    }
}

#[test]
fn a_trace_has_an_event_for_each_attempt_on_a_thread_with_a_name() {
    let case = Case::toml(JOBS);
    let done = case.reiver(&["run", "jobs.toml", "--trace", "trace.json"]);
    done.expect(1);
    let events: Vec<Value> = serde_json::from_str(&case.read("trace.json")).expect("an array");
    let attempts: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(attempts.len(), 6);
    for attempt in &attempts {
        let is_named = events.iter().any(|event| {
            event["name"] == "thread_name"
                && (&event["pid"], &event["tid"]) == (&attempt["pid"], &attempt["tid"])
        });
        assert!(is_named, "{attempt}");
        assert!(attempt["ts"].as_f64().unwrap() >= 0.0 && attempt["dur"].as_f64().unwrap() > 0.0);
    }
    let of = |name: &str| attempts.iter().find(|event| event["name"] == name).unwrap();
    assert!(of("a")["dur"].as_f64().unwrap() >= 50_000.0);
    assert_ne!(of("a")["pid"], of("b")["pid"]);
    assert_eq!(of("</script><b>")["args"]["code"], 7);
}

#[test]
fn files_that_cannot_be_made_are_refused_before_anything_runs() {
    for option in ["--report", "--trace", "--joblog"] {
        let case = Case::toml("[[job]]\nrun = 'touch ran'\n");
        let done = case
            .reiver(&["run", "jobs.toml", option, "no/such/file"])
            .expect(2);
        let says = format!("{option}: no/such/file: No such file");
        assert!(done.stderr.contains(&says), "{}", done.stderr);
        assert!(!case.has("ran"));
    }
}

#[test]
fn an_empty_run_has_a_page_and_a_trace_too() {
    let case = Case::new();
    case.write("list.txt", "");
    let options = ["--report", "page.html", "--trace", "trace.json"];
    case.reiver(&[&["run", "list.txt"], &options[..]].concat())
        .expect(0);
    assert_eq!(told(&case.read("page.html"))["bars"], serde_json::json!([]));
    assert_eq!(
        serde_json::from_str::<Vec<Value>>(&case.read("trace.json")).unwrap(),
        [Value::Null; 0]
    );
}
