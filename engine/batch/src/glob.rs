//! Patterns over job names: `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`.
//!
//! A pattern matches a name as a whole, and `*` takes `/` too. A `]` right after the opening of a
//! set belongs to it; a `[` that nothing closes is itself. Matching goes back to the last `*` only
//! (Krauss, "Matching Wildcards: An Algorithm", 2008), so it takes at most pattern times name
//! steps, however many `*` there are.

/// A pattern, parsed.
#[derive(Debug, Clone)]
pub struct Glob {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    /// `*`: any text, none included.
    Any,
    /// `?`: one character.
    One,
    /// The character itself.
    Char(char),
    /// `[…]`: one character inside one of the ranges, or, negated, outside all of them.
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Parses a pattern; every text is one.
    pub fn new(pattern: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = pattern.chars();
        while let Some(first) = rest.next() {
            parts.push(match first {
                '*' => Part::Any,
                '?' => Part::One,
                '[' => match set(rest.as_str()) {
                    Some((part, after)) => {
                        rest = after.chars();
                        part
                    }
                    None => Part::Char('['),
                },
                other => Part::Char(other),
            });
        }
        Self { parts }
    }

    /// True if the pattern is more than a plain text.
    pub fn is_pattern(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part, Part::Char(_)))
    }

    /// The text that every match begins with.
    pub fn prefix(&self) -> String {
        let char_of = |part: &Part| match part {
            Part::Char(c) => Some(*c),
            _ => None,
        };
        self.parts.iter().map_while(char_of).collect()
    }

    /// True if the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let mut rest = name.chars();
        let mut part = 0;
        // Where the last `*` stands, and what was left of the name when it had taken what it has.
        let mut star = None;
        loop {
            if let Some(Part::Any) = self.parts.get(part) {
                part += 1;
                star = Some((part, rest.clone()));
                continue;
            }
            let mut after = rest.clone();
            match (self.parts.get(part), after.next()) {
                (None, None) => return true,
                (Some(expected), Some(c)) if expected.takes(c) => {
                    part += 1;
                    rest = after;
                }
                _ => {
                    let Some((after_star, left)) = &mut star else {
                        return false;
                    };
                    if left.next().is_none() {
                        return false;
                    }
                    part = *after_star;
                    rest = left.clone();
                }
            }
        }
    }
}

impl Part {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Char(own) => *own == c,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

/// Reads a set whose `[` has been taken: the part, and the text after its `]`.
fn set(text: &str) -> Option<(Part, &str)> {
    let (negated, body) = match text.strip_prefix('!') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let first = body.chars().next()?.len_utf8();
    let end = first + body[first..].find(']')?;
    let members: Vec<char> = body[..end].chars().collect();
    let mut ranges = Vec::new();
    let mut left = members.as_slice();
    loop {
        left = match left {
            [low, '-', high, after @ ..] => {
                ranges.push((*low, *high));
                after
            }
            [only, after @ ..] => {
                ranges.push((*only, *only));
                after
            }
            [] => break,
        };
    }
    Some((Part::Set { negated, ranges }, &body[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_name() {
        for (pattern, name, expected) in [
            ("fetch-*", "fetch-1", true),
            ("fetch-*", "fetch-", true),
            ("fetch-*", "prefetch-1", false),
            ("*.txt:line-?", "a/b.txt:line-7", true),
            ("*.txt:line-?", "a/b.txt:line-17", false),
            ("?", "ß", true),
            ("", "", true),
            ("*", "", true),
            ("[abc]x", "bx", true),
            ("[abc]x", "dx", false),
            ("[!abc]x", "dx", true),
            ("[!abc]x", "ax", false),
            ("[a-cx-z]", "y", true),
            ("[a-cx-z]", "d", false),
            ("[a-]", "-", true),
            ("[]]", "]", true),
            ("[!]]", "]", false),
        ] {
            assert_eq!(
                Glob::new(pattern).matches(name),
                expected,
                "{pattern} on {name}"
            );
        }
    }

    #[test]
    fn a_bracket_that_nothing_closes_is_itself() {
        assert!(Glob::new("a[b*").matches("a[bc"));
        assert!(Glob::new("[]").matches("[]"));
        assert!(Glob::new("[!").matches("[!"));
        assert!(!Glob::new("a[b").is_pattern());
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let stars = "a*".repeat(1000);
        let name = "a".repeat(5000);
        assert!(Glob::new(&stars).matches(&name));
        assert!(!Glob::new(&(stars + "b")).matches(&name));
    }

    /// The definition, with no regard for time.
    fn matches_naively(parts: &[Part], name: &[char]) -> bool {
        match parts {
            [] => name.is_empty(),
            [Part::Any, rest @ ..] => {
                (0..=name.len()).any(|taken| matches_naively(rest, &name[taken..]))
            }
            [part, rest @ ..] => {
                name.first().is_some_and(|c| part.takes(*c)) && matches_naively(rest, &name[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?\\[\\]!-]{0,10}", name in "[ab\\[\\]-]{0,10}") {
            let glob = Glob::new(&pattern);
            let chars: Vec<char> = name.chars().collect();
            prop_assert_eq!(glob.matches(&name), matches_naively(&glob.parts, &chars));
            prop_assert!(!glob.matches(&name) || name.starts_with(&glob.prefix()));
        }
    }
}
