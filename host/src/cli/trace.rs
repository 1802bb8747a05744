//! `--trace`: what was done with a vault's keys, on standard error.

use tracing_subscriber::fmt::format::FmtSpan;

use super::terminal::Lines;

/// From now on, until the process ends: a line for each operation when it is done, or an object with `--json`.
pub(super) fn show(json: bool) {
    // Ours only: what other crates may say isn't ours to promise anything of.
    let ours = |metadata: &tracing::Metadata<'_>| metadata.target().starts_with("modelseal");
    let filter = tracing_subscriber::filter::filter_fn(ours);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || Lines { json })
        .with_ansi(false)
        .with_span_events(FmtSpan::CLOSE);
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let registry = tracing_subscriber::registry();
    // A second subscriber isn't needed, nor can there be one.
    let _ = if json {
        registry.with(lines.json().flatten_event(true).with_filter(filter)).try_init()
    } else {
        registry.with(lines.compact().with_filter(filter)).try_init()
    };
}
