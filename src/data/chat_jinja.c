/* The templates as Jinja, for the chat_template.jinja of exported folders: transformers writes with them what
 * lk_chat_prompt writes. tests/e2e/chat_test.sh compares the two. */
#include "lockstep/data/chat.h"

/* The one check of both: what chat.c refuses. */
#define CHECKS                                                                                                             \
    "{%- for message in messages %}\n"                                                                                     \
    "  {%- if message['role'] not in ['system', 'user', 'assistant', 'tool'] %}\n"                                         \
    "    {{- raise_exception('the role ' + message['role'] + ' is none of system, user, assistant and tool') }}\n"         \
    "  {%- endif %}\n"                                                                                                     \
    "  {%- if message['content'] is not string %}\n"                                                                       \
    "    {{- raise_exception('the content of a message must be a text') }}\n"                                              \
    "  {%- endif %}\n"

static const char *const templates[LK_CHAT_COUNT] = {
    [LK_CHATML] = CHECKS "  {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\n"
                         "{%- endfor %}\n"
                         "{%- if add_generation_prompt %}\n"
                         "  {{- '<|im_start|>assistant\\n' }}\n"
                         "{%- endif %}\n",
    [LK_CHAT_LLAMA3] = "{{- '<|begin_of_text|>' }}\n" CHECKS
                       "  {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}\n"
                       "  {{- message['content'] | trim + '<|eot_id|>' }}\n"
                       "{%- endfor %}\n"
                       "{%- if add_generation_prompt %}\n"
                       "  {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n"
                       "{%- endif %}\n",
};

const char *lk_chat_jinja(enum lk_chat chat) {
    return chat <= LK_CHAT_LLAMA3 ? templates[chat] : NULL;
}
