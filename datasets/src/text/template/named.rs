//! Chat templates that a recipe may choose by name.
//!
//! Written here after the published prompt formats; each is the plain format, without tools.

use crate::foundation::Choice;

const CHATML: &str = "{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const LLAMA3: &str = "{{ bos_token }}\
{% for message in messages %}\
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + (message['content'] | trim) + '<|eot_id|>' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";

const GEMMA: &str = "{{ bos_token }}\
{% for message in messages %}\
{% if message['role'] == 'system' %}\
{{ raise_exception('The gemma template has no system role') }}\
{% endif %}\
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}\
{{ '<start_of_turn>' + role + '\\n' + (message['content'] | trim) + '<end_of_turn>\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}";

const ALPACA: &str = "{{ bos_token }}\
{% for message in messages %}\
{{ '' if loop.first else '\\n\\n' }}\
{% if message['role'] == 'system' and loop.first %}{{ message['content'] }}\
{% elif message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] }}\
{% elif message['role'] == 'assistant' %}{{ '### Response:\\n' + message['content'] + eos_token }}\
{% else %}{{ raise_exception('The alpaca template has the roles user and assistant, and system at the start') }}\
{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}{{ '\\n\\n### Response:\\n' }}{% endif %}";

/// Mistral's first format; `$space` stands before instructions and answers.
macro_rules! mistral {
    ($space:literal) => {
        concat!(
            "{% set system = messages[0]['content'] + '\\n\\n' if messages and messages[0]['role'] == 'system' else '' %}",
            "{{ bos_token }}",
            "{% for message in (messages[1:] if messages and messages[0]['role'] == 'system' else messages) %}",
            "{% if message['role'] not in ['user', 'assistant'] or (message['role'] == 'user') != (loop.index0 % 2 == 0) %}",
            "{{ raise_exception('The mistral template has the roles user and assistant, in turn, and system at the start') }}",
            "{% endif %}",
            "{% if message['role'] == 'user' %}",
            "{{ '",
            $space,
            "[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}",
            "{% else %}{{ '",
            $space,
            "' + message['content'] + eos_token }}{% endif %}",
            "{% endfor %}"
        )
    };
}

const MISTRAL: &str = mistral!("");

const MISTRAL_V1: &str = mistral!(" ");

const QWEN: &str = "{% set given = messages and messages[0]['role'] == 'system' %}\
{% if not given %}\
{{ '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}\
{% endif %}\
{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const PHI_4: &str = "{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] + '<|im_end|>' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}";

const DEEPSEEK: &str = "{{ bos_token }}\
{% for message in messages if message['role'] == 'system' %}\
{{ message['content'] if loop.first else '\\n\\n' + message['content'] }}\
{% endfor %}\
{% for message in messages %}\
{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}\
{% elif message['role'] == 'assistant' %}\
{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}\
{% elif message['role'] != 'system' %}{{ raise_exception('The deepseek template has the roles system, user and assistant') }}\
{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}";

/// A chat template that is known by name.
struct NamedTemplate {
    name: &'static str,
    description: &'static str,
    source: &'static str,
}

/// Of one text the second name is the one that Axolotl uses.
const NAMED: &[NamedTemplate] = &[
    NamedTemplate { name: "alpaca", description: "`### Instruction:` and `### Response:`", source: ALPACA },
    NamedTemplate { name: "chatml", description: "ChatML: `<|im_start|>role` to `<|im_end|>`", source: CHATML },
    NamedTemplate { name: "deepseek", description: "DeepSeek V3 and R1", source: DEEPSEEK },
    NamedTemplate { name: "deepseek_v3", description: "the same as `deepseek`", source: DEEPSEEK },
    NamedTemplate { name: "gemma", description: "Gemma 1 to 3, without a system role", source: GEMMA },
    NamedTemplate { name: "llama3", description: "Llama 3", source: LLAMA3 },
    NamedTemplate { name: "mistral", description: "Mistral: `[INST]` to `[/INST]`", source: MISTRAL },
    NamedTemplate {
        name: "mistral_v1",
        description: "the same as `mistral`, with a space before instructions and answers",
        source: MISTRAL_V1,
    },
    NamedTemplate { name: "phi-4", description: "Phi-4", source: PHI_4 },
    NamedTemplate { name: "phi_4", description: "the same as `phi-4`", source: PHI_4 },
    NamedTemplate { name: "qwen", description: "Qwen 2.5: ChatML with a system message by default", source: QWEN },
    NamedTemplate { name: "qwen_25", description: "the same as `qwen`", source: QWEN },
];

/// The templates that a recipe may choose by name.
pub fn named_templates() -> impl Iterator<Item = Choice> {
    NAMED.iter().map(|known| Choice { name: known.name, description: known.description })
}

/// The Jinja text of a named template.
pub(crate) fn named_source(name: &str) -> Option<&'static str> {
    NAMED.iter().find(|known| known.name == name).map(|known| known.source)
}
