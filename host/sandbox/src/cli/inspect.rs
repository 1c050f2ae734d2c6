//! `inspect`: everything this host knows of a pod.

use std::fmt::Write;

use clap::Args;
use postern_model::PodName;
use postern_sandbox::{
    Home,
    state::{Pod, Shell, ShellStatus},
    supervisor::CONSOLE_LOG,
};
use serde_json::{Value, json};

use super::{Failure, Output, print, print_json};

/// Show what this host knows of a pod
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  postern-host inspect demo\n  postern-host inspect demo --output json")]
pub(super) struct Arguments {
    name: PodName,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(home: &Home, arguments: &Arguments) -> Result<(), Failure> {
    let description = describe(&home.pod(&arguments.name)?)?;
    match arguments.output {
        Output::Json => print_json(&description),
        Output::Text => {
            let mut text = String::new();
            write_fields(&mut text, &description, 0);
            print(&text)
        }
    }
}

/// The record, with what is instead of what was written.
pub(super) fn describe(pod: &Pod) -> Result<Value, Failure> {
    let mut description = match pod.record() {
        Ok(record) => serde_json::to_value(record)
            .map_err(|error| Failure::internal("cannot describe the pod", &error))?,
        Err(error) => json!({ "name": pod.name(), "damage": error.to_string() }),
    };
    description["status"] = json!(pod.status()?);
    description["directory"] = json!(pod.directory().display().to_string());
    description["console"] = json!(pod.directory().join(CONSOLE_LOG).display().to_string());
    Ok(description)
}

/// The same of a shell, which is listed beside the pods.
pub(super) fn describe_shell(shell: &Shell, status: ShellStatus) -> Result<Value, Failure> {
    let mut description = match shell.record() {
        Ok(record) => serde_json::to_value(record)
            .map_err(|error| Failure::internal("cannot describe the shell", &error))?,
        Err(error) => json!({ "name": shell.name(), "damage": error.to_string() }),
    };
    description["status"] = json!(status);
    description["directory"] = json!(shell.directory().display().to_string());
    Ok(description)
}

fn write_fields(text: &mut String, value: &Value, depth: usize) {
    let Some(fields) = value.as_object() else { return };
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let label = name.replace('_', " ");
        // Writing into a String cannot fail.
        let _ = match value {
            Value::Object(_) => {
                let heading = writeln!(text, "{:depth$}{label}", "");
                write_fields(text, value, depth + 2);
                heading
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(in_line).collect();
                writeln!(text, "{:depth$}{label:<20} {}", "", items.join(", "))
            }
            value => writeln!(text, "{:depth$}{label:<20} {}", "", in_line(value)),
        };
    }
}

/// A value in few words: `vmm 182`, `qemu 16159 481866`.
fn in_line(value: &Value) -> String {
    let join = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => join(items.iter().map(in_line).collect()),
        Value::Object(fields) => join(fields.values().rev().map(in_line).collect()),
        other => other.to_string(),
    }
}
