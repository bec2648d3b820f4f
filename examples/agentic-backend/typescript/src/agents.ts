// The agents, in TypeScript: one that does research for whoever asks over HTTP, and a critic who looks at the report
// afterwards, from a queue. They must not know who serves the functions that they call, nor in what language.

import { randomUUID } from 'node:crypto'
import { TriggerAction } from 'iii-sdk'
import { connect, type Page } from './worker.ts'

interface Source {
  number: number
  title: string
  url: string
}

interface Report {
  topic: string
  status: 'pending' | 'reviewed'
  summary: string[]
  sources: Source[]
}

/** A sentence that nothing in its source bears out. */
interface Doubt {
  sentence: string
  why: string
}

const { iii, call } = connect('agents')

iii.registerFunction(
  'agents::researcher',
  async (request: { body?: { topic?: unknown } }) => {
    const topic = request.body?.topic
    if (typeof topic !== 'string' || topic.trim() === '') {
      return { status_code: 400, body: { error: 'wanted {"topic": "…"}' } }
    }
    const { results } = await call<{ results: { url: string }[] }>('web::search', { query: topic, limit: 3 })
    if (results.length === 0) return { status_code: 404, body: { error: `nothing is known of ${topic}` } }

    const pages = await Promise.all(results.map(({ url }) => call<Page>('web::scrape', { url })))
    const { sentences } = await call<{ sentences: string[] }>('llm::summarize', { topic, pages })

    const id = randomUUID()
    const sources = pages.map(({ title, url }, index) => ({ number: index + 1, title, url }))
    const report: Report = { topic, status: 'pending', summary: sentences, sources }
    await call('state::set', { scope: 'reports', key: id, value: report })

    // The reader need not wait for the critic; the queue does not forget him.
    await iii.trigger({ function_id: 'agents::critic', payload: { id }, action: TriggerAction.Enqueue({ queue: 'reviews' }) })
    return { status_code: 201, body: { id, ...report } }
  },
  { description: 'Searches, reads, and writes a report that cites its sources' },
)

iii.registerFunction(
  'agents::critic',
  async ({ id }: { id: string }) => {
    const report = await call<Report>('state::get', { scope: 'reports', key: id })
    const pages = await Promise.all(report.sources.map(({ url }) => call<Page>('web::scrape', { url })))
    const doubts = report.summary.flatMap((sentence) => doubt(sentence, pages))
    const verdict = doubts.length === 0 ? 'sound' : 'doubtful'
    const ops = [
      { type: 'set', path: 'status', value: 'reviewed' },
      { type: 'set', path: 'review', value: { verdict, checked: report.summary.length, doubts } },
    ]
    await call('state::update', { scope: 'reports', key: id, ops })
    return { verdict }
  },
  { description: 'Checks each sentence of a report against the source that it cites' },
)

/** What is wrong with a sentence: it cites nothing, or its source does not speak of the same things. */
function doubt(sentence: string, pages: Page[]): Doubt[] {
  const number = Number(/\[(\d+)\]\s*$/.exec(sentence)?.[1])
  const page = pages[number - 1]
  if (!page) return [{ sentence, why: 'it cites no source' }]
  const known = words(page.paragraphs.join(' '))
  const said = [...words(sentence.replace(/\[\d+\]\s*$/, ''))]
  const share = said.filter((word) => known.has(word)).length / Math.max(said.length, 1)
  return share < 0.6 ? [{ sentence, why: `${page.title} does not say so` }] : []
}

/** The words of a text that mean something by themselves, more or less. */
function words(text: string): Set<string> {
  return new Set(text.toLowerCase().match(/\p{L}{4,}/gu))
}

iii.registerTrigger({
  type: 'http',
  function_id: 'agents::researcher',
  config: { api_path: '/agents/research', http_method: 'POST' },
})

// A report that is not reviewed yet is put on the shelf, by a function in Python.
iii.registerTrigger({
  type: 'state',
  function_id: 'agents::librarian',
  config: { scope: 'reports', condition: 'status == "pending"' },
})
