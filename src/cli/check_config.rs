//! `check-config`: the settings as a table.

use crate::config::Effective;

/// One line for each setting: name, value, where the value came from.
pub(crate) fn table(settings: &[Effective]) -> String {
    let value = |setting: &Effective| setting.value.clone().unwrap_or_else(|| "-".to_owned());
    let widest = |text: &dyn Fn(&Effective) -> usize| settings.iter().map(text).max().unwrap_or_default();
    let (names, values) = (widest(&|setting| setting.name.len()), widest(&|setting| value(setting).chars().count()));
    let line =
        |setting: &Effective| format!("{:names$}  {:values$}  {}\n", setting.name, value(setting), setting.source());
    settings.iter().map(line).collect()
}
