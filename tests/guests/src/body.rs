//! What the functions of a guest do: the usual things, and any WAT.
//!
//! A body leaves the address of its answer on the stack. Every part of its parameters is in a local variable: `$input`
//! and `$input_length`, `$current_data`, `$target_present`, `$ctx_budget_ms` and so on. `$i`, `$j`, `$k` (i32) and `$n`
//! (i64) are free to use. The functions of `prelude.wat` can be called.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Instructions, the texts that they name, and the functions of the host that they call.
#[derive(Debug, Clone, Default)]
pub struct Body {
    pub(crate) wat: String,
    pub(crate) texts: Vec<String>,
    pub(crate) imports: Vec<(String, String)>,
}

impl From<&str> for Body {
    fn from(wat: &str) -> Self {
        Self { wat: wat.to_owned(), ..Self::default() }
    }
}

impl From<String> for Body {
    fn from(wat: String) -> Self {
        Self { wat, ..Self::default() }
    }
}

impl Body {
    /// Puts a text into the guest's memory and answers the instructions that push its address and length.
    pub fn text(&mut self, text: &str) -> String {
        self.texts.push(text.to_owned());
        let name = text_name(text);
        format!("(global.get {name}) (global.get {name}_length)")
    }

    /// Adds instructions.
    #[must_use]
    pub fn then(mut self, other: impl Into<Self>) -> Self {
        let other = other.into();
        self.wat.push('\n');
        self.wat.push_str(&other.wat);
        self.texts.extend(other.texts);
        self.imports.extend(other.imports);
        self
    }

    /// Says that the instructions call a function of the host, as `$models_find` for `models` and `find`. The parts of
    /// its result are at `$models_find_ok_data` and so on behind the address that it is given.
    #[must_use]
    pub fn calling(mut self, interface: &str, function: &str) -> Self {
        self.imports.push((interface.to_owned(), function.to_owned()));
        self
    }

    /// Does this only where a text stands in the parameter, and the rest otherwise.
    #[must_use]
    pub fn when_holds(self, parameter: &str, wanted: &str) -> Self {
        let mut condition = Self::default();
        let text = condition.text(wanted);
        condition.wat = format!(
            "(if (call $holds (local.get ${parameter}) (local.get ${parameter}_length) {text}) (then"
        );
        condition.then(self).then("(return)))")
    }

    /// Does this only for one command, and the rest otherwise.
    pub(crate) fn when_command(self, name: &str) -> Self {
        let mut condition = Self::default();
        let text = condition.text(name);
        condition.wat =
            format!("(if (call $same (local.get $command) (local.get $command_length) {text}) (then");
        condition.then(self).then("(return)))")
    }
}

/// Name of the variable that holds the address of a text.
pub(crate) fn text_name(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("$text_{:016x}", hasher.finish())
}

/// Answers a parameter as it is.
#[must_use]
pub fn echo(parameter: &str) -> Body {
    format!("(call $answer (local.get ${parameter}) (local.get ${parameter}_length))").into()
}

/// Answers the same text always; JSON or not.
#[must_use]
pub fn answer(text: &str) -> Body {
    let mut body = Body::default();
    let text = body.text(text);
    body.wat = format!("(call $answer {text})");
    body
}

/// Answers a parameter, a JSON object without spaces, with one more member unless it has it.
#[must_use]
pub fn splice(parameter: &str, member: &str) -> Body {
    let mut body = Body::default();
    let text = body.text(&format!("{{{member}}}"));
    body.wat = format!(
        "(call $answer (call $merge {text} (local.get ${parameter}) (local.get ${parameter}_length)))"
    );
    body
}

/// Answers an object with a merge patch applied to its own members; both are parameters without spaces.
#[must_use]
pub fn merge(object: &str, changes: &str) -> Body {
    format!(
        "(call $answer (call $merge (local.get ${object}) (local.get ${object}_length)
           (local.get ${changes}) (local.get ${changes}_length)))"
    )
    .into()
}

/// Agrees.
#[must_use]
pub fn agree() -> Body {
    "(call $agree)".into()
}

/// Answers a fault; the code as the contract names it, as `not-found`.
#[must_use]
pub fn refuse(code: &str, message: &str) -> Body {
    let mut body = Body::default();
    let text = body.text(message);
    body.wat = format!("(call $refuse (global.get $fault_{}) {text})", code.replace('-', "_"));
    body
}

/// Traps.
#[must_use]
pub fn trap() -> Body {
    "unreachable".into()
}

/// Never ends.
#[must_use]
pub fn spin() -> Body {
    "(loop $again (br $again)) unreachable".into()
}

/// Calls itself until its stack is used up.
#[must_use]
pub fn recurse() -> Body {
    "(drop (call $recurse (i32.const 0x7fffffff))) (call $agree)".into()
}

/// Takes all memory that it can get and then says that there is no more.
#[must_use]
pub fn grow_politely() -> Body {
    let grow = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";
    Body::from(grow).then(refuse("unavailable", "there is no more memory"))
}

/// Takes all memory that it can get and does not stop asking.
#[must_use]
pub fn grow_rudely() -> Body {
    "(loop $again (drop (memory.grow (i32.const 16))) (br $again)) unreachable".into()
}

/// Takes one mebibyte more and goes on.
#[must_use]
pub fn grow() -> Body {
    "(drop (memory.grow (i32.const 16)))".into()
}

/// Computes as many steps as the first number in a parameter says, and answers a number.
#[must_use]
pub fn burn(parameter: &str) -> Body {
    format!(
        "(call $answer (call $digits
           (call $burn (call $number (local.get ${parameter}) (local.get ${parameter}_length)))))"
    )
    .into()
}

/// Passes a fault of the host on that stands at `$k`.
pub(crate) fn pass_fault_on(import: &str) -> String {
    let part = |name: &str| format!("(i32.add (local.get $k) (global.get ${import}_err_{name}))");
    format!(
        "(if (i32.load8_u (local.get $k)) (then
           (return (call $refuse
             (i32.load8_u {}) (i32.load {}) (i32.load {})))))",
        part("code"),
        part("message"),
        part("message_length")
    )
}

/// Asks for the document of a model whose id is the only text in a parameter, `"…"`; answers its content or `null`.
#[must_use]
pub fn find(model: &str, parameter: &str) -> Body {
    let mut body = Body::default();
    let model = body.text(model);
    body.wat = format!(
        "(local.set $k (call $allocate (global.get $models_find_size)))
         (call $models_find {model}
           (i32.add (local.get ${parameter}) (i32.const 1))
           (i32.sub (local.get ${parameter}_length) (i32.const 2))
           (local.get $k))
         {fault}
         (if (i32.load8_u (i32.add (local.get $k) (global.get $models_find_ok_present))) (then
           (return (call $answer
             (i32.load (i32.add (local.get $k) (global.get $models_find_ok_data)))
             (i32.load (i32.add (local.get $k) (global.get $models_find_ok_data_length)))))))",
        fault = pass_fault_on("models_find")
    );
    body.calling("models", "find").then(answer("null"))
}

/// Creates a document of a model from a parameter; answers what it became.
#[must_use]
pub fn create(model: &str, parameter: &str) -> Body {
    let mut body = Body::default();
    let model = body.text(model);
    body.wat = format!(
        "(local.set $k (call $allocate (global.get $models_write_size)))
         (call $models_write {model}
           (i32.const 0) (local.get ${parameter}) (local.get ${parameter}_length)
           (i32.const 0) (i64.const 0) (i32.const 0) (i64.const 0)
           (local.get $k))
         {fault}
         (call $answer
           (i32.load (i32.add (local.get $k) (global.get $models_write_ok_data)))
           (i32.load (i32.add (local.get $k) (global.get $models_write_ok_data_length))))",
        fault = pass_fault_on("models_write")
    );
    body.calling("models", "write")
}

/// Logs a message at the level `info` and goes on.
#[must_use]
pub fn log(message: &str) -> Body {
    let mut body = Body::default();
    let text = body.text(message);
    body.wat = format!("(call $log_write (i32.const 2) {text} (i32.const 0) (i32.const 0))");
    body.calling("log", "write")
}

/// Answers a setting of the module as it is, or `null`.
#[must_use]
pub fn setting(pointer: &str) -> Body {
    let mut body = Body::default();
    let pointer = body.text(pointer);
    body.wat = format!(
        "(local.set $k (call $allocate (global.get $config_get_json_size)))
         (call $config_get_json {pointer} (local.get $k))
         (if (i32.load8_u (local.get $k)) (then
           (return (call $answer
             (i32.load (i32.add (local.get $k) (global.get $config_get_json)))
             (i32.load (i32.add (local.get $k) (global.get $config_get_json_length)))))))"
    );
    body.calling("config", "get-json").then(answer("null"))
}
