/* models.mjs - the bundled storyteller behind the chat templates of other families, for what must hold for real models:
 * it babbles, but what a grammar forces, and how a family's calls are read, does not depend on that.
 *
 * The published templates of the conformance set are used where it lies beside the project, else small ones of our own
 * with the same marks. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CONTROL, USER_DEFINED, patched } from './gguf.mjs';
import { root, start, temporary } from './pare.mjs';

const published = join(root, '../shared/conformance/templates');

const CHATML_END = '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}';

const own = {
  hermes: `{% if tools %}<|im_start|>system
You may call functions: <tools>{% for t in tools %}{{ t | tojson }}
{% endfor %}</tools> For each call write <tool_call>
{"name": <function-name>, "arguments": <args-dict>}
</tool_call><|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}${CHATML_END}`,
  llama3: `{% if tools %}Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.
{% for t in tools %}{{ t | tojson }}
{% endfor %}{% endif %}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{% if m.tool_calls %}{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}{% else %}{{ m.content }}{% endif %}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}`,
  mistral: `{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in messages %}{% if m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}{% endfor %}]{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]{% elif m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}{% endif %}{% endfor %}`,
  coder: `{% for t in tools or [] %}{{ t | tojson }}
{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>
<function={{ c.function.name }}>
{% for k, v in c.function.arguments | items %}<parameter={{ k }}>
{{ v if v is string else v | tojson }}
</parameter>
{% endfor %}</function>
</tool_call>{% endfor %}<|im_end|>
{% endfor %}${CHATML_END}`,
  think: `{% for m in messages %}<|user|>{% for t in tools or [] %}{{ t.function.name }} {% endfor %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}</think>{% endfor %}{% if add_generation_prompt %}<think>{% if enable_thinking is defined and not enable_thinking %}

</think>

{% endif %}{% endif %}`,
};

const files = {
  hermes: 'NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja',
  qwen3: 'Qwen-Qwen3-0.6B.jinja',
  llama3: 'meta-llama-Llama-3.1-8B-Instruct.jinja',
  coder: 'Qwen3-Coder.jinja',
  mistral: 'mistralai-Mistral-Nemo-Instruct-2407.jinja',
};

function template(family) {
  const file = files[family] && join(published, files[family]);
  return file && existsSync(file) ? readFileSync(file, 'utf8') : own[family] ?? own.hermes;
}

/* Marks of families that are tokens of their own: control tokens of the storyteller's under another name. It begins its
 * answers behind <|assistant|> and ends them with <|end|>; where these are <think> and </think>, it reasons first. */
function thinks(type) {
  return {
    tokens: {
      '<|system|>': { text: '<tool_call>', type },
      '<|assistant|>': { text: '<think>', type },
      '<|end|>': { text: '</think>', type },
    },
    end: '<|endoftext|>',
  };
}

const vocabulary = {
  mistral: { tokens: { '<|system|>': { text: '[TOOL_CALLS]', type: CONTROL } } },
  think: thinks(USER_DEFINED), /* as Qwen's and DeepSeek's */
  control: thinks(CONTROL),
};

/* Starts pare with a model for each family; its data directory holds them. `control` is `think` with marks that are
 * control tokens. */
export async function startFamilies(families, args = []) {
  const data = temporary();
  let config = 'models:\n  storyteller: {file: bundled}\n';
  for (const family of families) {
    const file = join(data, `${family}.gguf`);
    patched(join(root, 'models/storyteller.gguf'), file,
      { template: template(family === 'control' ? 'think' : family), context: 4096, ...vocabulary[family] });
    config += `  ${family}: {file: ${file}, context: 4096, sequences: 8}\n`;
  }
  const pare = await start({ config, data, args });
  pare.ownsData = true;
  return pare;
}
