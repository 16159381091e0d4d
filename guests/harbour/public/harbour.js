// Keeps the page current: events say that the board changed, a WebSocket carries the talk.
const find = (selector) => document.querySelector(selector)
const board = find('#board')
const live = find('#live')

// --- events -----------------------------------------------------------------------------------
// Several changes at once are one look at the board.
let looking = false
let again = false
async function look() {
  if (!board) return
  if (looking) return void (again = true)
  looking = true
  try {
    const response = await fetch('/fragments/board')
    // Not under the fingers of somebody who is choosing a berth.
    if (response.ok && !board.contains(document.activeElement?.closest('select'))) board.innerHTML = await response.text()
  } catch {
    // The stream of events says when the harbour is back.
  } finally {
    looking = false
    if (again) {
      again = false
      look()
    }
  }
}

const events = new EventSource('/api/events')
let run = null
events.addEventListener('open', () => {
  live.textContent = 'live'
  live.classList.add('on')
})
events.addEventListener('error', () => {
  live.textContent = 'not live'
  live.classList.remove('on')
})
events.addEventListener('hello', (event) => {
  const now = JSON.parse(event.data).run
  // Another run of the program: what this page shows may be old.
  if (run && run !== now) look()
  run = now
})
for (const name of ['arrived', 'moored', 'cast-off', 'departed', 'gap']) events.addEventListener(name, look)
events.addEventListener('tide', (event) => {
  const tide = find('#tide')
  const { height, rising } = JSON.parse(event.data)
  if (tide) tide.innerHTML = `${height.toFixed(2)}<small> m ${rising ? 'rising' : 'falling'}</small>`
})

// --- boats ------------------------------------------------------------------------------------
async function ask(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: body ? { 'content-type': 'application/json' } : {},
    body: body && JSON.stringify(body),
  })
  if (response.ok) return null
  const problem = await response.json().catch(() => ({}))
  return problem.message ?? `The harbour answered ${response.status}.`
}

find('#arrive')?.addEventListener('submit', async (event) => {
  event.preventDefault()
  const form = event.target
  const { name, kind, length } = Object.fromEntries(new FormData(form))
  const refused = await ask('POST', '/api/boats', { name, kind, length: Number(length) })
  form.querySelector('output').textContent = refused ?? ''
  if (!refused) form.reset()
})

board?.addEventListener('click', async (event) => {
  const button = event.target.closest('button[data-do]')
  if (!button) return
  const boat = button.closest('[data-boat]')
  const path = `/api/boats/${boat.dataset.boat}`
  const wish = {
    'cast-off': () => ask('DELETE', `${path}/berth`),
    depart: () => ask('DELETE', path),
    moor: () => ask('POST', `${path}/berth`, { berth: boat.querySelector('select').value }),
  }
  button.focus()
  const refused = await wish[button.dataset.do]()
  if (refused) boat.querySelector('small').textContent = refused
})

// --- the quay ---------------------------------------------------------------------------------
const list = find('#messages')
const names = ['Ada', 'Bosun', 'Cook', 'Dora', 'Elias', 'Finn', 'Greta', 'Hanne', 'Ivo', 'Jonah']
const me = (sessionStorage.name ??= `${names[Math.floor(Math.random() * names.length)]} ${Math.floor(Math.random() * 90 + 10)}`)

function show({ id, author, text }) {
  if (list.querySelector(`[data-id="${id}"]`)) return
  const item = document.createElement('li')
  item.dataset.id = id
  const name = document.createElement('b')
  name.textContent = author
  item.append(name, ` ${text}`)
  list.append(item)
  list.scrollTop = list.scrollHeight
}

if (list) {
  list.scrollTop = list.scrollHeight
  // What came by the API rather than by the WebSocket.
  events.addEventListener('said', (event) => show(JSON.parse(event.data)))
  events.addEventListener('unsaid', (event) => list.querySelector(`[data-id="${JSON.parse(event.data).id}"]`)?.remove())

  const form = find('#say')
  const output = form.querySelector('output')
  let socket
  let wait = 500
  const connect = () => {
    socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/ws?name=${encodeURIComponent(me)}`)
    socket.onopen = () => (wait = 500)
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data)
      if (message.type === 'said') show(message.message)
      if (message.type === 'people') find('#people').textContent = `${message.people.length} here`
      output.textContent = message.type === 'refused' ? message.message : ''
    }
    socket.onclose = () => {
      find('#people').textContent = 'away'
      setTimeout(connect, wait)
      wait = Math.min(wait * 2, 10_000)
    }
  }
  connect()
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    if (socket.readyState !== WebSocket.OPEN) return void (output.textContent = 'Not connected yet.')
    socket.send(JSON.stringify({ type: 'say', text: form.text.value }))
    form.reset()
  })
}
