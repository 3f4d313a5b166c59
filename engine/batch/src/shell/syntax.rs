//! As much of the shell's grammar as it takes to tell which `)` ends a `$( )`.
//!
//! Parentheses pair up but for the patterns of `case`, so what is followed is where a reserved
//! word may stand and which `case` is open. The rest of the grammar is of no interest.

/// What a `)` closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// A subshell, a function's `()`, or a pattern of `case`.
    Inner,
    /// The `$( )` around it all.
    Outer,
    /// Nothing that makes sense.
    Mismatch,
}

/// Where in the grammar the text of one `$( )`, or the whole, has come to.
#[derive(Debug)]
pub(super) struct Syntax {
    open: Vec<Open>,
    next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Parenthesis,
    Case,
}

/// What the next word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A command's first, so perhaps a reserved word.
    Command,
    /// An argument.
    Argument,
    /// The name after `for`.
    ForName,
    /// `in` or `do`.
    ForIn,
    /// The name after bash's `function`.
    FunctionName,
    /// What `case` looks at.
    CaseWord,
    /// `in`.
    CaseIn,
    /// A pattern, or `esac`.
    Pattern,
    /// More of a pattern.
    PatternRest,
}

impl Syntax {
    pub(super) fn new() -> Self {
        Self {
            open: Vec::new(),
            next: Next::Command,
        }
    }

    /// A word has ended; `None` is one that is quoted in part, and so never reserved.
    pub(super) fn word(&mut self, word: Option<&[u8]>) {
        let word = word.unwrap_or_default();
        self.next = match (self.next, word) {
            (Next::Command, b"case") => {
                self.open.push(Open::Case);
                Next::CaseWord
            }
            (Next::Command | Next::Pattern, b"esac") => {
                if self.open.last() == Some(&Open::Case) {
                    self.open.pop();
                }
                Next::Command
            }
            (Next::Command, b"for" | b"select") => Next::ForName,
            (Next::Command, b"function") => Next::FunctionName,
            (
                Next::Command,
                b"if" | b"then" | b"elif" | b"else" | b"fi" | b"while" | b"until" | b"do" | b"done"
                | b"{" | b"}" | b"!" | b"time",
            ) => Next::Command,
            (Next::ForIn, b"do") | (Next::FunctionName, _) => Next::Command,
            (Next::ForName, _) => Next::ForIn,
            (Next::CaseWord, _) => Next::CaseIn,
            (Next::CaseIn, b"in") => Next::Pattern,
            (Next::Pattern | Next::PatternRest, _) => Next::PatternRest,
            (Next::Command | Next::Argument | Next::ForIn | Next::CaseIn, _) => Next::Argument,
        };
    }

    /// A newline.
    pub(super) fn newline(&mut self) {
        if !matches!(
            self.next,
            Next::CaseWord | Next::CaseIn | Next::Pattern | Next::PatternRest
        ) {
            self.next = Next::Command;
        }
    }

    /// `;`, `&`, `|`, `&&` or `||`.
    pub(super) fn separator(&mut self) {
        if !matches!(self.next, Next::Pattern | Next::PatternRest) {
            self.next = Next::Command;
        }
    }

    /// `;;`, or bash's `;&` and `;;&`.
    pub(super) fn end_of_clause(&mut self) {
        let in_case = self.open.last() == Some(&Open::Case);
        self.next = if in_case {
            Next::Pattern
        } else {
            Next::Command
        };
    }

    /// An operator of redirection; its target comes next.
    pub(super) fn redirection(&mut self) {
        if self.next == Next::Command {
            self.next = Next::Argument;
        }
    }

    /// `(`.
    pub(super) fn open(&mut self) {
        if self.next == Next::Pattern {
            self.next = Next::PatternRest;
        } else {
            self.open.push(Open::Parenthesis);
            self.next = Next::Command;
        }
    }

    /// `)`.
    pub(super) fn close(&mut self) -> Closed {
        let in_pattern = self.next == Next::PatternRest;
        self.next = Next::Command;
        match self.open.last() {
            None => Closed::Outer,
            Some(Open::Case) if in_pattern => Closed::Inner,
            Some(Open::Case) => Closed::Mismatch,
            Some(Open::Parenthesis) => {
                self.open.pop();
                Closed::Inner
            }
        }
    }
}
