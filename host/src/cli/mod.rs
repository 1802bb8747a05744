//! The command line: `args` says what can be asked, `context` holds what all commands share, and the commands
//! stand in `models`, `exec`, `fleet`, `folders`, `migrate`, `inspect`, `devices`, `keys`, `life` and `demo`. `secret` and `prompt` find the
//! passphrase or PIN, `trace` shows what was done with the keys, and all text that is shown
//! goes through `terminal`.

mod args;
mod context;
mod demo;
mod devices;
#[cfg(target_os = "linux")]
mod exec;
mod fingerprints;
mod fleet;
mod folders;
mod inspect;
mod keys;
mod life;
mod migrate;
mod models;
mod parts;
#[cfg(unix)]
mod prompt;
mod secret;
mod terminal;
mod trace;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use modelseal_hsm::wiped::wiped;

use crate::error::{Code, Error, Result};
use crate::text::shown;
use args::{Args, Command};
use context::Context;

/// Runs the command line and gives its exit code.
pub fn main() -> ExitCode {
    forbid_core_dumps();
    // The library wipes its stack, too. But a value that it returns, such as an error, may take along in its unused
    // bytes what was on the stack where it was made; an exit code has none.
    let code = wiped(run_and_report);
    end_if_stuck(code);
    ExitCode::from(code)
}

/// A thread that hangs in a PKCS#11 library must not be in the way: some crash when the process ends in the ordinary
/// way meanwhile.
fn end_if_stuck(code: u8) {
    if modelseal_hsm::is_stuck() {
        let _ = std::io::stdout().flush();
        let _ = std::io::stderr().flush();
        signal_hook::low_level::exit(code.into());
    }
}

fn run_and_report() -> u8 {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(error),
    };
    let context = Context::new(&args.global);
    if args.global.trace {
        trace::show(args.global.json);
    }
    context::listen(&args.global);
    match run(args.command, &context) {
        Ok(()) => 0,
        Err(error) => {
            context.report(&error);
            exit_code(&error)
        }
    }
}

/// The exit code of a failure: what every program of modelseal's ends with.
pub fn exit_code(error: &Error) -> u8 {
    error.code() as u8
}

/// A core dump would have keys and plaintext in it.
fn forbid_core_dumps() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // Where it is refused, the command still does its work.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// `--help` and `--version` come as errors, too. With `--json`, a wrong command line is an object like any
/// other error.
fn usage(error: clap::Error) -> u8 {
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    let lines = usage_lines(&error);
    if std::env::args_os().any(|arg| arg == "--json") {
        // All of what clap says before it shows the usage.
        let said =
            lines.iter().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
        let what = said.map(|line| line.trim()).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        let what = what.trim_start_matches("error: ").to_owned();
        context::report_json(&Error::usage(what, "see modelseal --help"));
    } else {
        terminal::complain(&lines);
    }
    Code::Usage as u8
}

/// What clap says of a command line that is wrong in the same way and has nothing in it that would break a line: its
/// text has arguments in it as they are.
fn usage_lines(error: &clap::Error) -> Vec<String> {
    let shown = std::env::args_os().map(|arg| shown(&arg.to_string_lossy()).into_owned());
    match Args::try_parse_from(shown) {
        Err(shown) if shown.kind() == error.kind() => {
            shown.render().to_string().lines().map(str::to_owned).collect()
        }
        _ => vec![format!("error: {}", error.kind()), "For more information, try '--help'.".into()],
    }
}

fn run(command: Command, context: &Context<'_>) -> Result<()> {
    // A wrong setting is told before anything is asked for.
    crate::cipher::Backend::chosen()?;
    crate::work::threads()?;
    match command {
        Command::Init(args) => keys::init(&args, context),
        Command::Seal(args) => models::seal(&args, context),
        Command::MigrateFernet(args) => migrate::migrate_fernet(&args, context),
        Command::Inspect(args) => inspect::run(&args, context),
        Command::Verify(args) => models::verify(&args, context),
        Command::Open(args) => models::open(&args, context),
        Command::Tensors(args) => parts::tensors(&args, context),
        Command::Exec(args) => exec(&args, context),
        Command::Grant(args) => models::grant(&args, context),
        Command::Rewrap(args) => life::rewrap(&args, context),
        Command::Reseal(args) => models::reseal(&args, context),
        Command::Device(command) => devices::run(command, context),
        Command::Key(command) => keys::run(command, context),
        Command::Demo(args) => demo::run(&args, context),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "modelseal", &mut script);
            terminal::print_data(&String::from_utf8_lossy(&script))
        }
        Command::Man { dir } => man(&dir, context),
    }
}

#[cfg(target_os = "linux")]
use exec::run as exec;

#[cfg(not(target_os = "linux"))]
fn exec(_: &args::ExecArgs, _: &Context<'_>) -> Result<()> {
    Err(Error::new(Code::Other, "exec needs Linux", "use `modelseal open`"))
}

fn man(dir: &std::path::Path, context: &Context<'_>) -> Result<()> {
    let made = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Args::command(), dir));
    made.map_err(|error| Error::io(dir, &error))?;
    context.show(
        &serde_json::json!({ "dir": terminal::name(dir) }),
        &format!("wrote the manual pages into {}", dir.display()),
    )
}
