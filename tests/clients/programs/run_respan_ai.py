"""respan-ai: one OpenAI call that it instruments by itself.

Environment: RESPAN_BASE_URL (ends in /api), RESPAN_API_KEY, OPENAI_BASE_URL. Prints one JSON object.
"""

import json
import os

from openai import OpenAI
from respan import Respan
from respan_instrumentation_openai import OpenAIInstrumentor

respan = Respan(instrumentations=[OpenAIInstrumentor()])
client = OpenAI(api_key="none", base_url=os.environ["OPENAI_BASE_URL"], max_retries=0)
answer = client.chat.completions.create(
    model="gpt-4o-mini", messages=[{"role": "user", "content": "weather?"}], max_tokens=16
)
respan.flush()
print(json.dumps({"result": answer.choices[0].message.content}))
