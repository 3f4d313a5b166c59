//! Lines that need no shell.

use std::borrow::Cow;

/// The words of a line, if a shell would do nothing with it but execute them.
///
/// `None` is always right: the caller then asks the shell. So a line is taken only if it is words
/// between blanks, of letters, digits, `_-./,:+@%=`, bytes outside ASCII, and quoted parts with
/// nothing in them that quotes leave special; and if its first word is no reserved word, builtin or
/// assignment. Takes time linear in the line's length.
pub fn plain_words(line: &[u8]) -> Option<Vec<Cow<'_, [u8]>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
        rest = &rest[blanks..];
        if rest.is_empty() {
            break;
        }
        let (word, after) = take_word(rest)?;
        if words.is_empty() && is_own(&word) {
            return None;
        }
        words.push(word);
        rest = after;
    }
    (!words.is_empty()).then_some(words)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// True if a shell does more with a line that begins with this word than to execute it.
fn is_own(first: &[u8]) -> bool {
    first.is_empty() || first.starts_with(b"%") || first.contains(&b'=') || is_taken(first)
}

/// True to the words that some `/bin/sh` (dash, bash, busybox) takes for itself: reserved words, then
/// builtins.
#[rustfmt::skip]
fn is_taken(first: &[u8]) -> bool {
    matches!(
        first,
        b"!" | b"[[" | b"case" | b"coproc" | b"do" | b"done" | b"elif" | b"else" | b"esac" | b"fi"
            | b"for" | b"function" | b"if" | b"in" | b"select" | b"then" | b"time" | b"until" | b"while"
            | b"{" | b"}"
            | b"." | b":" | b"[" | b"alias" | b"bg" | b"bind" | b"break" | b"builtin" | b"caller" | b"cd"
            | b"chdir" | b"command" | b"compgen" | b"complete" | b"compopt" | b"continue" | b"declare"
            | b"dirs" | b"disown" | b"echo" | b"enable" | b"eval" | b"exec" | b"exit" | b"export"
            | b"false" | b"fc" | b"fg" | b"getopts" | b"hash" | b"help" | b"history" | b"jobs" | b"kill"
            | b"let" | b"local" | b"logout" | b"mapfile" | b"newgrp" | b"popd" | b"printf" | b"pushd"
            | b"pwd" | b"read" | b"readarray" | b"readonly" | b"return" | b"set" | b"shift" | b"shopt"
            | b"sleep" | b"source" | b"suspend" | b"test" | b"times" | b"trap" | b"true" | b"type"
            | b"typeset" | b"ulimit" | b"umask" | b"unalias" | b"unset" | b"wait"
    )
}

/// The word that the text begins with, and what follows it.
fn take_word(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut word = Cow::Borrowed(&[][..]);
    let mut rest = text;
    while let Some(&first) = rest.first()
        && !is_blank(first)
    {
        let part;
        (part, rest) = match first {
            b'\'' | b'"' => {
                let length = rest[1..].iter().position(|byte| *byte == first)?;
                let part = &rest[1..1 + length];
                if first == b'"' && part.iter().any(|byte| matches!(byte, b'\\' | b'$' | b'`')) {
                    return None;
                }
                (part, &rest[length + 2..])
            }
            _ => {
                let is_safe = |byte: u8| {
                    byte.is_ascii_alphanumeric()
                        || !byte.is_ascii()
                        || b"_-./,:+@%=".contains(&byte)
                };
                let length = rest.iter().take_while(|byte| is_safe(**byte)).count();
                if length == 0 {
                    return None;
                }
                rest.split_at(length)
            }
        };
        if word.is_empty() {
            word = Cow::Borrowed(part);
        } else {
            word.to_mut().extend(part);
        }
    }
    Some((word, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let text = |word: Cow<'_, [u8]>| String::from_utf8_lossy(&word).into_owned();
        plain_words(line.as_bytes()).map(|words| words.into_iter().map(text).collect())
    }

    #[test]
    fn words_and_simple_quotes_need_no_shell() {
        for (line, expected) in [
            ("/bin/true", &["/bin/true"][..]),
            ("  gzip\t-9 a.txt  ", &["gzip", "-9", "a.txt"]),
            (
                "env A=b c:d x@y,z 50%",
                &["env", "A=b", "c:d", "x@y,z", "50%"],
            ),
            ("cp 'it is' \"a  b\" ''", &["cp", "it is", "a  b", ""]),
            ("cp a'b c'\"d'\"e ä", &["cp", "ab cd'e", "ä"]),
        ] {
            assert_eq!(words(line).expect(line), expected);
        }
    }

    #[test]
    fn anything_that_a_shell_would_act_on_goes_to_the_shell() {
        for line in [
            "",
            "  ",
            "true",
            "'echo' a",
            "cd /",
            "[ a ]",
            "if",
            "A=b cmd",
            "=x",
            "%1",
            "''",
            "a;b",
            "a&",
            "a|b",
            "a>b",
            "a<b",
            "(a)",
            "a $b",
            "a `b`",
            "a \"$b\"",
            "a \"\\b\"",
            "a \\b",
            "a *",
            "a ?",
            "a [b]",
            "a #b",
            "#a",
            "~/a",
            "a ~",
            "a b=~",
            "a {b,c}",
            "a\nb",
            "! a",
            "a 'b",
            "a \"b",
            "a ^b",
            "a\u{0}b",
            "a\rb",
            "a\u{c}b",
        ] {
            assert_eq!(words(line), None, "{line:?}");
        }
    }
}
