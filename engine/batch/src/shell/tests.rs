//! The promise, held against a real shell: whatever value, wherever its placeholder stands.

use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use proptest::prelude::*;

use super::plain_words;
use super::quoting::Unclear;
use crate::template::Template;

/// Renders a line whose keys are `a`, `b` and `c`.
fn line(text: &str, values: [&str; 3]) -> Result<String, Vec<Unclear>> {
    let (template, found) = Template::parse_line(text, |word| {
        ["a", "b", "c"].iter().position(|key| *key == word)
    });
    let unclear: Vec<_> = found
        .placeholders
        .iter()
        .filter_map(|p| p.unclear)
        .collect();
    if unclear.is_empty() {
        Ok(template.render(|key| values[key].into()))
    } else {
        Err(unclear)
    }
}

/// What a shell prints for a line.
fn output(shell: &str, line: &str) -> Vec<u8> {
    let output = Command::new(shell)
        .args(["-c", "--", line])
        .env_clear()
        .env("x", "X")
        .env("PATH", "/usr/bin:/bin")
        .output()
        .expect("the shell starts");
    assert!(output.stderr.is_empty(), "{shell} -c {line:?}: {output:?}");
    output.stdout
}

/// `PROPTEST_CASES` asks for more.
fn cases(cases: u32) -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if asked {
        config
    } else {
        ProptestConfig { cases, ..config }
    }
}

/// The shells of this machine that `/bin/sh` may be.
fn shells() -> Vec<&'static str> {
    let known = ["/bin/sh", "/bin/dash", "/bin/bash"];
    known
        .into_iter()
        .filter(|path| std::path::Path::new(path).exists())
        .collect()
}

/// Lines that print, each ended by a NUL, what is right of the arrow, with `a`, `b`, `c` in place
/// of the values. (In `$( )` a dot ends them: it drops newlines at the end.)
const LINES: &[(&str, &[&str])] = &[
    ("printf '%s\\0' {a}", &["{a}"]),
    ("printf '%s\\0' '{a}'", &["{a}"]),
    ("printf '%s\\0' \"{a}\"", &["{a}"]),
    (
        "printf '%s\\0' {a}{b} '{a}{b}' \"{a}{b}\"",
        &["{a}{b}", "{a}{b}", "{a}{b}"],
    ),
    ("printf '%s\\0' x{a}'y{b}z'\"{c}\"", &["x{a}y{b}z{c}"]),
    // What stands right before a value must not take it in.
    ("printf '%s\\0' \"$x{a}\" $x{a}", &["X{a}", "X{a}"]),
    ("printf '%s\\0' \"\\{a}\" \"\\\\{a}\"", &["\\{a}", "\\{a}"]),
    (
        "set -- p; printf '%s\\0' \"$1{a}\" \"$#{a}\" \"$?{a}\"",
        &["p{a}", "1{a}", "0{a}"],
    ),
    ("printf '%s\\0' ~{a} \"~{a}\"", &["~{a}", "~{a}"]),
    (
        "printf '%s\\0' \"{a}$x\" {a}$x \"{a}(b)\"",
        &["{a}X", "{a}X", "{a}(b)"],
    ),
    ("y={a}; printf '%s\\0' \"$y\"", &["{a}"]),
    ("y=\"{a}\" z='{b}'; printf '%s\\0' \"$y$z\"", &["{a}{b}"]),
    ("y={a} sh -c 'printf \"%s\\0\" \"$y\"'", &["{a}"]),
    ("printf '%s\\0' {a}#{b} # {c}", &["{a}#{b}"]),
    ("# {a}\nprintf '%s\\0' {b} # it's \"{c}\n# {a}", &["{b}"]),
    ("printf '%s\\0' \\\n{a} x\\\n{b}", &["{a}", "x{b}"]),
    (
        "printf '%s\\0' \\' {a} \\\" {b}",
        &["'", "{a}", "\"", "{b}"],
    ),
    (
        "printf '%s\\0' '' '\"' {a} \"'\" {b}",
        &["", "\"", "{a}", "'", "{b}"],
    ),
    // $( ) is like the top, however deep, with quotes of its own.
    ("printf '%s\\0' \"$(printf %s. {a})\"", &["{a}."]),
    (
        "printf '%s\\0' \"$(printf %s. '{a}' \"{b}\")\" {c}",
        &["{a}.{b}.", "{c}"],
    ),
    (
        "printf '%s\\0' \"x$(printf %s. \"$(printf %s. \"{a}\")\" {b})y\"",
        &["x{a}..{b}.y"],
    ),
    (
        "printf '%s\\0' \"$( (printf %s. {a}); f() { printf %s. {b}; }; f)\"",
        &["{a}.{b}."],
    ),
    ("printf '%s\\0' \"$(# it's )\nprintf %s. {a})\"", &["{a}."]),
    (
        "printf '%s\\0' \"$(printf %s. a#) {b} #{c}\"",
        &["a#. {b} #{c}"],
    ),
    // case's patterns end in a parenthesis that opens nowhere.
    (
        "printf '%s\\0' \"$(case {a} in esac; case q in a) : ;; (b|q) printf %s. \"{b}\";; esac)\" \"{c}\"",
        &["{b}.", "{c}"],
    ),
    (
        "printf '%s\\0' \"$(if true; then case {a} in\n{a})\nprintf %s. {b} ;;\n*) echo ')'\nesac; fi)\" {c}",
        &["{b}.", "{c}"],
    ),
    (
        "printf '%s\\0' \"$(for i in case; do printf %s. $i {a}; done)\" \"{b}\"",
        &["case.{a}.", "{b}"],
    ),
    (
        "printf '%s\\0' \"$(printf %s. case {a} esac)\" \"{b}\"",
        &["case.{a}.esac.", "{b}"],
    ),
    (
        "case {a} in {a}) printf '%s\\0' {b};; esac; printf '%s\\0' {c}",
        &["{b}", "{c}"],
    ),
    // What takes no value itself does not disturb those after it.
    (
        "printf '%s\\0' $((1+(2))) \"$((3))\" {a} \"{b}\"",
        &["3", "3", "{a}", "{b}"],
    ),
    (
        "printf '%s\\0' ${x} \"${y:-d}\" ${y:-'}'} {a} \"{b}\"",
        &["X", "d", "}", "{a}", "{b}"],
    ),
    (
        "printf '%s\\0' `echo \"it)\\`echo x\\`\"` {a} \"`echo y`{b}\"",
        &["it)x", "{a}", "y{b}"],
    ),
    (
        "{ cat <<E; printf '%s\\0' {a}; }\nit's $x \"\nE\nprintf '%s\\0' \"{b}\"",
        &["it's X \"\n{a}", "{b}"],
    ),
    (
        "cat <<'E' ; printf '%s\\0' '{a}'\n$( ` ${\nE\nprintf '%s\\0' {b}",
        &["$( ` ${\n{a}", "{b}"],
    ),
    (
        "cat <<-\\E <<F;\n\ta '\n\tE\nb \"\nF\nprintf '%s\\0' {b}",
        &["b \"\n{b}"],
    ),
    (
        "printf '%s\\0' \"$(cat <<E\n) it's\nE\n)\" {a}",
        &[") it's", "{a}"],
    ),
    (
        "cat <<E \"{a}\" 2>&1 >&2 | :\nx\nE\nprintf '%s\\0' {b}",
        &["{b}"],
    ),
    (
        "printf '%s\\0' x >/dev/null; printf '%s\\0' {a} 2>/dev/null </dev/null",
        &["{a}"],
    ),
];

/// What a line is to print.
fn expected(prints: &[&str], values: [&str; 3]) -> Vec<u8> {
    let mut text = String::new();
    for print in prints {
        let (template, _) = Template::parse(print, |word| {
            ["a", "b", "c"].iter().position(|key| *key == word)
        });
        text += &template.render(|key| values[key].into());
        text.push('\0');
    }
    text.into_bytes()
}

fn check(values: [&str; 3]) {
    for (text, prints) in LINES {
        let rendered = line(text, values).unwrap_or_else(|unclear| panic!("{text}: {unclear:?}"));
        for shell in shells() {
            let printed = output(shell, &rendered);
            let expected = expected(prints, values);
            assert_eq!(
                String::from_utf8_lossy(&printed),
                String::from_utf8_lossy(&expected),
                "{shell}: {text}\n{rendered}"
            );
        }
    }
}

#[test]
fn nasty_values_arrive_exactly_wherever_their_placeholder_stands() {
    for values in [
        ["", "", ""],
        ["plain", "1", "-n"],
        ["'", "\"", "\\"],
        ["it's", "$(echo no)", "`echo no`"],
        ["$x", "${x}", "$((1))"],
        ["a b\tc", "a\nb", "\n"],
        ["*", "~", "#"],
        ["; exit 1", "&& exit", "| exit"],
        ["{a}", "{{b}}", "!"],
        ["\\\\", "\\n", "\\'\\\""],
        ["ä\u{81}\u{88}ß", "日本", "\u{1b}[31m"],
        ["abc_1", "9", "_"],
    ] {
        check(values);
    }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn any_value_arrives_exactly(
        a in "[a-z0-9 '\"\\\\$`{}()#\n\t;&|<>*?~!=\u{80}-\u{ff}-]{0,8}",
        b in "[a-z0-9 '\"\\\\$`{}()#\n\t;&|<>*?~!=\u{80}-\u{ff}-]{0,8}",
        c in "\\PC{0,8}",
    ) {
        check([&a, &b, &c]);
    }
}

/// Parts of lines, some of which leave quotes or parentheses open for others to close.
const PARTS: &str = "{a}|{b}|{c}|'|\"|$(|)|`|${x|}|$((|))|\\|\n| |;|#|<<E|<<'E'|<<-E|\nE\n|\
    case {c} in |x)|;;|esac|$x|$|$'|&&|>|echo |printf '%s\\0' |(|{ |; }|if :; then | fi|\\\n|\
    for i in | do | done|word";

fn parts() -> impl Strategy<Value = String> {
    let parts: Vec<&str> = PARTS.split('|').collect();
    prop::collection::vec(prop::sample::select(parts), 1..14).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(cases(400))]

    /// Any line that was not refused does with nasty values what it does with harmless ones, in
    /// whose place they then stand.
    #[test]
    fn no_line_lets_a_value_out_of_its_place(text in parts()) {
        let harmless = ["QaQ", "QbQ", "QcQ"];
        // No blanks, newlines or backslashes: what an unquoted $( ) or dash's echo makes of those
        // is the line's own doing.
        let nasty = ["'$(no)\"`no`;", "\"$x'", ";no)}'#"];
        let rendered = line(&text, harmless);
        prop_assert_eq!(rendered.is_ok(), line(&text, nasty).is_ok());
        let Ok(rendered) = rendered else { return Ok(()) };
        // `$$` is another one each time.
        if text.contains("$$") {
            return Ok(());
        }
        for shell in shells() {
            let folder = tempfile::tempdir().expect("a folder for what the line may write");
            let run = |options: &[&str], line: &str| {
                let mut command = Command::new(shell);
                command.args(options).args(["-c", "--", line]).current_dir(&folder);
                command.output().expect("the shell starts")
            };
            if !run(&["-n"], &rendered).status.success() {
                continue;
            }
            let multiline = line(&text, ["\n)no", "a\n'\n\"\nE\n", "\nno\n"]).expect("as above");
            // A backslash before the end of all is a word to bash, but none where there are lines before.
            prop_assert!(
                run(&["-n"], &multiline).status.success() || text.ends_with('\\'),
                "{shell}: {multiline}"
            );
            let mut printed = String::from_utf8_lossy(&run(&[], &rendered).stdout).into_owned();
            for (harmless, nasty) in harmless.iter().zip(nasty) {
                printed = printed.replace(harmless, nasty);
            }
            let nasty = line(&text, nasty).expect("as above");
            let output = run(&[], &nasty);
            prop_assert_eq!(&*String::from_utf8_lossy(&output.stdout), &*printed, "{}: {}", shell, nasty);
        }
    }
}

#[test]
fn where_the_quoting_cannot_be_told_a_placeholder_is_refused() {
    for (text, expected) in [
        ("echo `echo {a}`", Unclear::Backquotes),
        ("echo \"`echo '{a}'`\"", Unclear::Backquotes),
        ("echo $((1 + {a}))", Unclear::Arithmetic),
        ("echo \"$((1 + $(echo {a})))\"", Unclear::Arithmetic),
        ("echo ${x:-{a}}", Unclear::Parameter),
        ("echo \"${x:-\"{a}\"}\"", Unclear::Parameter),
        ("cat <<E\n{a}\nE", Unclear::HereDocument),
        ("cat <<'E'\n{a}\nE", Unclear::HereDocument),
        ("echo $(cat <<-E\n\t{a}\n\tE\n)", Unclear::HereDocument),
        ("cat <<{a}", Unclear::HereDelimiter),
        ("cat <<E{a}`", Unclear::HereDelimiter),
        ("cat <<E\n{a}", Unclear::HereDocument),
        ("echo $'{a}'", Unclear::DollarQuote),
        ("echo \\{a}", Unclear::Backslash),
        ("echo $\\\n{a}", Unclear::Dollar),
        ("echo $'\\'' {a}", Unclear::Lost),
        ("echo $((a) | (b)) {a}", Unclear::Lost),
        ("echo $(cat <<E) {a}\nE", Unclear::Lost),
        ("cat <<E $(\necho {a})\nE", Unclear::Lost),
        ("cat <<E\n$(\nE\n) {a}", Unclear::Lost),
        ("cat <<E\nx\\\nE\nE\necho {a}", Unclear::Lost),
        ("echo \"${x%'\"'}\" {a}", Unclear::Lost),
    ] {
        assert_eq!(line(text, [""; 3]), Err(vec![expected]), "{text}");
    }
}

#[test]
fn nesting_without_end_is_refused_and_not_followed() {
    for open in ["$(", "\"$(", "${x:-", "$((", "`", "(", "\"${x:-"] {
        let text = open.repeat(99_999) + "{a}";
        assert_eq!(line(&text, [""; 3]).is_ok(), open == "(", "{open}");
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn words_of_a_plain_line_are_what_a_shell_makes_of_it(
        line in "[a-z0-9 \t'\"$\\\\*=~/:.,@%+{}#;-]{0,20}",
    ) {
        let line = format!("/usr/bin/env printf '%s\\0' {line}");
        let Some(words) = plain_words(line.as_bytes()) else { return Ok(()) };
        let direct = Command::new(std::ffi::OsStr::from_bytes(&words[0]))
            .args(words[1..].iter().map(|word| std::ffi::OsStr::from_bytes(word)))
            .output()
            .expect("env starts");
        for shell in shells() {
            let shell = Command::new(shell).args(["-c", "--", &line]).output().expect("it starts");
            prop_assert_eq!(&direct.stdout, &shell.stdout);
        }
    }
}
