//! Jobs that are functions of the program: whether it has them, and whether they can take what the file
//! gives them.

use std::sync::Arc;

use super::Plan;
use super::findings::{Findings, Place, place_of};
use super::table::{Action, Key};
use super::texts::Texts;
use crate::job_file::{Arg, JobKeys};
use crate::read::nearest;
use crate::source::Spanned;
use crate::task::{Args, Filled, Registry, Task};
use crate::template::Template;

/// A task as a table names it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: Box<str>,
    /// Always a table; where the file has none, an empty one at the place of the task's name.
    pub(super) args: Spanned<Arg<Template<Key>>>,
    pub(super) task: Arc<dyn Task>,
}

/// The task that a job names; `None` where there is none such, which is then said.
pub(super) fn call(texts: &mut Texts<'_>, keys: &JobKeys, registry: &Registry) -> Option<Call> {
    let name = keys.task.as_ref()?;
    let args = match &keys.args {
        Some(args) => Spanned {
            value: args.value.map(&args.span, &mut |text: &String, span| {
                texts.text(&Spanned {
                    value: text.clone(),
                    span: span.clone(),
                })
            }),
            span: args.span.clone(),
        },
        None => Spanned {
            value: Arg::Table(Vec::new()),
            span: name.span.clone(),
        },
    };
    let Some(task) = registry.find(&name.value) else {
        let (message, help) = missing(&name.value, registry);
        let mut error = place_of(texts.id, name).error(message);
        error.help = Some(help);
        texts.findings.push(error);
        return None;
    };
    Some(Call {
        name: name.value.as_str().into(),
        args,
        task: Arc::clone(task),
    })
}

fn missing(name: &str, registry: &Registry) -> (String, String) {
    if registry.is_empty() {
        let message =
            "tasks are functions of the program that runs the file, and this one has none";
        let help = "run the file with the program whose tasks these are (one whose `main` hands them to \
                    `reiver_batch::main`), or say what to start: `run` or `command`";
        return (message.to_owned(), help.to_owned());
    }
    let names: Vec<&str> = registry.names().collect();
    let help = match nearest(name, &names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("this program has {}", names.join(", ")),
    };
    (format!("there is no task `{name}`"), help)
}

/// Refuses arguments that their task cannot take; of a matrix, the first cell's that is wrong.
pub(super) fn check(plan: &Plan, findings: &mut Findings) {
    for (index, table) in (0..).zip(&plan.tables) {
        let Action::Task(call) = &table.action else {
            continue;
        };
        let mut jobs = plan.jobs_of(index);
        let one = if is_constant(&call.args.value) {
            1
        } else {
            usize::MAX
        };
        let wrong = jobs.by_ref().take(one).find_map(|job| {
            let args = plan.args(job, 1)?;
            call.task.check(&args).err()
        });
        if let Some(wrong) = wrong {
            let place = Place {
                source: table.common.base.source,
                span: wrong.span.unwrap_or_else(|| call.args.span.clone()),
            };
            let message = format!(
                "the task `{}` cannot take this: {}",
                call.name, wrong.message
            );
            let mut error = place.error(message);
            error.help = wrong.help;
            findings.push(error);
        }
    }
}

fn is_constant(arg: &Arg<Template<Key>>) -> bool {
    match arg {
        Arg::Text(text) => text.is_constant(),
        Arg::List(list) => list.iter().all(|item| is_constant(&item.value)),
        Arg::Table(table) => table.iter().all(|(_, item)| is_constant(&item.value)),
        Arg::Integer(_) | Arg::Number(_) | Arg::Bool(_) | Arg::Null => true,
    }
}

/// Arguments with the values of their placeholders.
pub(super) fn filled<'v>(
    args: &Spanned<Arg<Template<Key>>>,
    value_of: impl Fn(Key) -> std::borrow::Cow<'v, str> + Copy,
) -> Args {
    let value = args
        .value
        .map(&args.span, &mut |text: &Template<Key>, _| Filled {
            text: text.render(value_of),
            is_made: !text.is_constant(),
        });
    Spanned {
        value,
        span: args.span.clone(),
    }
}

/// The arguments as people read them, and as a log has them: JSON.
pub(super) fn text_of(args: &Arg<Filled>) -> serde_json::Value {
    use serde_json::Value;
    match args {
        Arg::Text(text) => text.text.as_str().into(),
        Arg::Integer(number) => (*number).into(),
        Arg::Number(number) => match (number.parse::<u64>(), number.parse::<f64>()) {
            (Ok(whole), _) => whole.into(),
            // What JSON has no number for is a text.
            (_, Ok(real)) if real.is_finite() => real.into(),
            _ => number.as_str().into(),
        },
        Arg::Bool(value) => (*value).into(),
        Arg::Null => Value::Null,
        Arg::List(list) => list.iter().map(|item| text_of(&item.value)).collect(),
        Arg::Table(table) => {
            let entries = table.iter();
            let entry =
                |(key, item): &(Spanned<String>, Args)| (key.value.clone(), text_of(&item.value));
            Value::Object(entries.map(entry).collect())
        }
    }
}
