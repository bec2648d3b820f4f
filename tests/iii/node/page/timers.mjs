// `node:timers/promises`, as far as the actor uses it.

export const setTimeout = (ms) => new Promise((resolve) => globalThis.setTimeout(resolve, ms))
