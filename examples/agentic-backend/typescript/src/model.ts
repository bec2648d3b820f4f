// The language model as a function, in TypeScript: `llm::summarize` asks whatever speaks OpenAI's protocol. It must not know
// whether that is a model or the stand-in beside this file.

import OpenAI from 'openai'
import { connect, type Page } from './worker.ts'

const { iii } = connect('model')

// OPENAI_BASE_URL and OPENAI_API_KEY say who answers. Made after the connection, whose telemetry follows `fetch`.
const openai = new OpenAI()
const model = process.env.OPENAI_MODEL ?? 'gpt-4o-mini'

const INSTRUCTIONS =
  'Answer in three sentences, one a line, from the sources alone. End each with the number of its source in brackets.'

iii.registerFunction(
  'llm::summarize',
  async ({ topic, pages }: { topic: string; pages: Page[] }) => {
    const sources = pages.map(({ title, paragraphs }, index) => `[${index + 1}] ${title}\n${paragraphs.join('\n')}`)
    const answer = await openai.chat.completions.create({
      model,
      messages: [
        { role: 'system', content: INSTRUCTIONS },
        { role: 'user', content: `${topic}\n\n${sources.join('\n\n')}` },
      ],
    })
    const text = answer.choices[0]?.message.content ?? ''
    return { sentences: text.split('\n').filter((line) => line.trim() !== ''), tokens: answer.usage?.total_tokens }
  },
  { description: 'Answers a question in a few sentences, from pages that it is given' },
)
