//! Texts that must stay as they are, each a file of `tests/golden`.

/// Compares a text with the golden file of that name. With `INSTA_UPDATE=always` in the environment the file is written
/// anew instead.
#[track_caller]
pub fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
