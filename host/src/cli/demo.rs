use super::args::DemoArgs;
use super::context::Context;
use crate::error::Result;
pub(super) fn run(_: &DemoArgs, _: &Context<'_>) -> Result<()> {
    Ok(())
}
