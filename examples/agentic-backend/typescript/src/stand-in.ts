// Stands in for a language model, so that the example needs no key and no network: aimock serves OpenAI's protocol, and in
// place of a model answers what is below. It takes from each source the sentence that has most words of the question. It
// must not know who asks.

import { LLMock, type ChatCompletionRequest } from '@copilotkit/aimock'

const model = new LLMock({ host: '127.0.0.1', port: Number(process.env.MODEL_PORT ?? 4010) })
model.on({ endpoint: 'chat' }, (request) => ({ content: answer(request) }))
console.log(`OPENAI_BASE_URL=${await model.start()}/v1`)

process.stdin.resume().on('end', () => void model.stop().then(() => process.exit(0)))

function answer({ messages }: ChatCompletionRequest): string {
  const [topic = '', ...sources] = textOf(messages.at(-1)?.content).split('\n\n')
  const asked = stems(topic)
  return sources.map((source) => best(source, asked)).join('\n')
}

/** The sentence of a source that speaks most of what was asked for. */
function best(source: string, asked: Set<string>): string {
  const [heading = '', ...lines] = source.split('\n')
  const score = (sentence: string) => [...stems(sentence)].filter((stem) => asked.has(stem)).length
  const sentences = lines.flatMap((line) => line.split(/(?<=[.!?])\s+/))
  const [first = ''] = sentences.sort((a, b) => score(b) - score(a))
  return `${first} ${/^\[\d+\]/.exec(heading)?.[0] ?? ''}`
}

function stems(text: string): Set<string> {
  return new Set(text.toLowerCase().match(/\p{L}{3,}/gu)?.map((word) => word.slice(0, 4)))
}

function textOf(content: ChatCompletionRequest['messages'][number]['content'] | undefined): string {
  if (typeof content === 'string') return content
  return content?.map((part) => part.text ?? '').join('') ?? ''
}
