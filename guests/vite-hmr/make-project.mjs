// Makes a project with Vite's React template, from the npm registry, unchanged.
//
//   node make-project.mjs <folder>
//
// Nothing is installed in it and nothing in it is touched: that is for whoever deploys it. A folder
// that this version has made before is left as it is; one of another origin is refused.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import process from 'node:process'

// `create-vite` of the npm registry: its templates come inside the package.
const VERSION = '9.3.0'

function fail(message) {
  console.error(`make-project: ${message}`)
  process.exit(1)
}

const [folder, ...rest] = process.argv.slice(2)
if (!folder || rest.length > 0) fail('say where: node make-project.mjs <folder>')
const project = path.resolve(folder)
const stamp = `${project}.create-vite`

if (existsSync(project)) {
  const made = existsSync(stamp) ? readFileSync(stamp, 'utf8').trim() : null
  if (made === VERSION) process.exit(0)
  if (made === null) fail(`${project} is there already and was not made here: remove it, or name another folder`)
  rmSync(project, { recursive: true })
}

// Made aside and then moved, so that what is there is whole. The folder's name becomes the project's.
const name = path.basename(project)
const aside = path.join(path.dirname(project), `.${name}-${process.pid}`)
mkdirSync(aside, { recursive: true })
const npm = ['create', '--yes', `vite@${VERSION}`, name, '--', '--template', 'react', '--no-interactive']
const made = spawnSync('npm', npm, { cwd: aside, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
if (made.error) fail(`can't run npm: ${made.error.message}`)
if (made.status !== 0 || !existsSync(path.join(aside, name, 'package.json'))) {
  rmSync(aside, { recursive: true })
  fail(`npm create vite@${VERSION} failed (exit code ${made.status}):\n${made.stdout}${made.stderr}`)
}
renameSync(path.join(aside, name), project)
rmSync(aside, { recursive: true })
writeFileSync(stamp, `${VERSION}\n`)
