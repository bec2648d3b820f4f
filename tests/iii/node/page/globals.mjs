// What Node has in every module. The page's address says what a command line would: `?url=…&name=…`.

export { Buffer } from 'buffer'

const asked = new URLSearchParams(location.search)
export const process = {
  argv: ['page', 'actor.js', asked.get('url'), asked.get('name')],
  env: {},
  cwd: () => '/',
  nextTick: (work, ...words) => queueMicrotask(() => work(...words)),
  // A page ends when its tab does.
  stdin: { on() {}, resume() {} },
  exit() {},
}

export const resolvePackage = (name) => `file:///${name}/dist/index.mjs`

// Node's timers are objects that can be begun anew.
export const setTimeout = (work, ms, ...words) => {
  let id = globalThis.setTimeout(work, ms, ...words)
  const timer = {
    clear: () => globalThis.clearTimeout(id),
    refresh: () => {
      timer.clear()
      id = globalThis.setTimeout(work, ms, ...words)
      return timer
    },
  }
  return timer
}
export const clearTimeout = (timer) => timer?.clear?.()
