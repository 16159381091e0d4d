// Hot module replacement of a Vite project, seen from a real browser.
//
//   node hmr.mjs --url http://board.localhost:8080/ --exec '["hythe", "exec", "board", "--"]' [--cwd DIR]
//                [--timeout SECONDS] [--screenshot FILE]
//
// Opens the page in headless Chromium, counts its button up, then runs a command *inside the
// deployment* that edits src/App.jsx: the words of `--exec` with `node -e …` behind them. Passes when
// the new text shows, brought by an `update` over the page's WebSocket, without a reload: a mark on
// `window`, the button's count and the number of navigations are as before.
//
// Prints one JSON object. Exit code: 0 passed, 1 failed (`error` says at which step and why), 2 called wrongly.
// `CHROMIUM` names the browser's program; without it the usual places are looked at.
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import process from 'node:process'
import { parseArgs, stripVTControlCharacters } from 'node:util'

import { chromium } from 'playwright-core'

// No sandbox: it needs privileges that containers lack, and only the page under test is opened. The
// others keep the browser from calling its maker's servers.
const BROWSER_FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]
const BROWSERS = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
]
// What the template's page says, and what the edit makes of it.
const HEADING = 'Get started'
const FILE = 'src/App.jsx'
const CLICKS = 3

function usage(message) {
  console.error(`hmr: ${message}`)
  process.exit(2)
}

function options() {
  const { values } = parseArgs({
    options: {
      url: { type: 'string' },
      exec: { type: 'string', default: '[]' },
      cwd: { type: 'string', default: '.' },
      timeout: { type: 'string', default: '60' },
      screenshot: { type: 'string' },
    },
  })
  if (!values.url || !URL.canParse(values.url)) usage('--url must be the address of the page, as http://board.localhost:8080/')
  const words = (text) => {
    try {
      const parsed = JSON.parse(text)
      return Array.isArray(parsed) && parsed.every((word) => typeof word === 'string') ? parsed : null
    } catch {
      return null
    }
  }
  const prefix = words(values.exec)
  if (!prefix) usage(`--exec must be a JSON array of strings, and is ${values.exec}`)
  const seconds = Number(values.timeout)
  if (!(seconds > 0)) usage(`--timeout must be a number of seconds, and is ${values.timeout}`)
  return { ...values, prefix, timeout: seconds * 1000 }
}

function browserPath() {
  const named = process.env.CHROMIUM
  if (named) return existsSync(named) ? named : usage(`CHROMIUM is ${named}, and there is no such file`)
  return BROWSERS.find(existsSync) ?? usage(`no Chromium in ${BROWSERS.join(', ')}: install it, or set CHROMIUM`)
}

/** The program that runs inside the deployment, in the project's folder. */
function editor(to) {
  const code = `
    const fs = require('node:fs')
    const text = fs.readFileSync(${JSON.stringify(FILE)}, 'utf8')
    if (!text.includes(${JSON.stringify(HEADING)})) throw new Error('the text to edit is not in ' + ${JSON.stringify(FILE)})
    fs.writeFileSync(${JSON.stringify(FILE)}, text.replace(${JSON.stringify(HEADING)}, ${JSON.stringify(to)}))
    console.log('edited ' + process.cwd())`
  return ['node', '-e', code.replaceAll(/\s*\n\s*/g, '; ').replace(/^; /, '')]
}

/** Runs a command to its end; its exit code and what it printed. */
function run([program, ...args], cwd, timeout) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'], timeout })
    const output = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr']) {
      child[name].setEncoding('utf8').on('data', (text) => (output[name] += text))
    }
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, ...output }))
  })
}

/** What the page did, written down from before it is opened. */
function watch(page) {
  const seen = { navigations: 0, sockets: [], updates: [], errors: [], refused: [] }
  page.on('framenavigated', (frame) => frame === page.mainFrame() && seen.navigations++)
  page.on('pageerror', (error) => seen.errors.push(String(error)))
  page.on('response', (response) => {
    if (response.status() >= 400) seen.refused.push(`${response.status()} ${response.url()}`)
  })
  page.on('requestfailed', (request) => seen.refused.push(`${request.failure()?.errorText} ${request.url()}`))
  page.on('websocket', (socket) => {
    seen.sockets.push(socket.url())
    socket.on('framereceived', ({ payload }) => {
      const message = String(payload)
      // Vite's protocol (vite/types/hmrPayload.d.ts): {type: 'update', updates: [{path, …}]}.
      if (message.includes('"update"')) {
        const { type, updates = [] } = JSON.parse(message)
        if (type === 'update') seen.updates.push(...updates.map((update) => update.path))
      }
    })
  })
  return seen
}

function expect(condition, message) {
  if (!condition) throw new Error(message)
}

async function check(page, { url, prefix, cwd, timeout }, result) {
  const seen = watch(page)
  result.seen = seen
  page.setDefaultTimeout(timeout)

  result.step = 'open the page'
  const response = await page.goto(url, { waitUntil: 'load', timeout })
  expect(response?.ok(), `${url} answered ${response?.status()}`)
  await page.getByRole('heading', { name: HEADING }).waitFor()
  // Every picture has arrived and is one.
  await page.waitForFunction(() => [...document.images].every((image) => image.complete && image.naturalWidth > 0))

  result.step = 'use the page'
  const button = page.getByRole('button', { name: /^Count is/ })
  for (let click = 0; click < CLICKS; click++) await button.click()
  await page.getByRole('button', { name: `Count is ${CLICKS}` }).waitFor()
  const mark = randomUUID()
  await page.evaluate((mark) => (window.hytheMark = mark), mark)
  expect(seen.sockets.length > 0, 'the page opened no WebSocket, by which updates would come')
  const navigations = seen.navigations

  result.step = 'edit inside the deployment'
  const heading = `Edited ${mark.slice(0, 8)}`
  const edit = await run([...prefix, ...editor(heading)], cwd, timeout)
  expect(
    edit.code === 0,
    `${prefix.join(' ') || 'node'} ended with ${edit.code ?? edit.signal}: ${edit.stdout}${edit.stderr}`.trim(),
  )
  result.edit = edit.stdout.trim()

  result.step = 'see the edit'
  await page.getByRole('heading', { name: heading }).waitFor()
  result.heading = await page.getByRole('heading', { level: 1 }).innerText()

  result.step = 'find all else as it was'
  expect((await page.evaluate(() => window.hytheMark)) === mark, 'the page was loaded anew: the mark on window is gone')
  expect(seen.navigations === navigations, `the page navigated ${seen.navigations - navigations} times`)
  expect(
    (await button.innerText()) === `Count is ${CLICKS}`,
    `the component lost its state: the button says "${await button.innerText()}"`,
  )
  expect(
    seen.updates.some((path) => path.endsWith(FILE)),
    `no update of ${FILE} came over the WebSocket; these did: ${seen.updates.join(', ') || 'none'}`,
  )
  expect(seen.errors.length === 0, `the page threw: ${seen.errors.join('; ')}`)
  expect(seen.refused.length === 0, `requests failed: ${seen.refused.join('; ')}`)
}

const settings = options()
const executablePath = browserPath()
const result = { url: settings.url, passed: false, step: 'start the browser' }
let browser
try {
  browser = await chromium.launch({ executablePath, args: BROWSER_FLAGS, timeout: settings.timeout })
  const page = await browser.newPage()
  try {
    await check(page, settings, result)
    result.passed = true
    delete result.step
  } finally {
    if (settings.screenshot) await page.screenshot({ path: settings.screenshot, fullPage: true }).catch(() => {})
  }
} catch (error) {
  result.error = `could not ${result.step}: ${stripVTControlCharacters(error.message).trim()}`
} finally {
  await browser?.close()
}
console.log(JSON.stringify(result, null, 2))
process.exitCode = result.passed ? 0 : 1
