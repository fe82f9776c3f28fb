//! Which endpoint the environment asks for. Pure.

/// Forces the choice: `none`, `localstack`, `ministack`, or a URL.
pub const CHOICE_VAR: &str = "TROMMEL_TEST_ENDPOINT";

/// The SDK's own variable: an emulator that runs already.
pub const URL_VAR: &str = "AWS_ENDPOINT_URL";

/// What to play on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// LocalStack in Docker; else MiniStack.
    First,
    /// LocalStack in Docker, or an error.
    LocalStack,
    /// MiniStack, or an error.
    MiniStack,
    /// What answers at this URL, or an error.
    Url(String),
    /// Nothing, on purpose.
    None,
}

impl Choice {
    /// What the environment says.
    ///
    /// # Errors
    /// Names a value that means nothing, and those that do.
    pub fn from_env() -> Result<Self, String> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// [`Choice::from_env`], with the environment as a function.
    ///
    /// # Errors
    /// Names a value that means nothing, and those that do.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let filled = |name| var(name).filter(|value| !value.is_empty());
        let Some(word) = filled(CHOICE_VAR) else {
            return Ok(filled(URL_VAR).map_or(Self::First, Self::Url));
        };
        match word.as_str() {
            "none" => Ok(Self::None),
            "localstack" => Ok(Self::LocalStack),
            "ministack" => Ok(Self::MiniStack),
            url if url.starts_with("http://") || url.starts_with("https://") => Ok(Self::Url(word)),
            other => Err(format!(
                "{CHOICE_VAR}={other}: use `none`, `localstack`, `ministack` or a URL"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(vars: &[(&str, &str)]) -> Result<Choice, String> {
        Choice::from_vars(|name| {
            let found = vars.iter().find(|(var, _)| *var == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_emulator_that_runs_goes_before_one_to_start() {
        assert_eq!(choice(&[]), Ok(Choice::First));
        let url = "http://127.0.0.1:4566";
        assert_eq!(choice(&[(URL_VAR, url)]), Ok(Choice::Url(url.to_owned())));
        assert_eq!(choice(&[(URL_VAR, "")]), Ok(Choice::First));
    }

    #[test]
    fn a_forced_choice_goes_before_all() {
        let url = (URL_VAR, "http://127.0.0.1:4566");
        assert_eq!(choice(&[url, (CHOICE_VAR, "none")]), Ok(Choice::None));
        let forced = choice(&[url, (CHOICE_VAR, "ministack")]);
        assert_eq!(forced, Ok(Choice::MiniStack));
        let other = choice(&[url, (CHOICE_VAR, "http://[::1]:1")]);
        assert_eq!(other, Ok(Choice::Url("http://[::1]:1".to_owned())));
        assert!(choice(&[(CHOICE_VAR, "docker")]).is_err());
    }
}
