// Starts the kit of LLM Bus inside .git, which decides everything. Where it is missing or fails, nothing happens.
import { spawn } from "node:child_process"

const LAUNCHER = __LAUNCHER__
const PYTHON = process.platform === "win32" ? "python" : "python3"
const LIMIT_MILLISECONDS = 8000
const LOOK_MILLISECONDS = 1000 * Number(process.env.LLM_BUS_LOOK_SECONDS ?? 20)
const SERVER = "llm-bus"
const HIDDEN_TOOLS = __HIDDEN_TOOLS__
const EDIT_TOOLS = ["edit", "write", "multiedit", "patch", "apply_patch"]

const BLOCK = /<!-- llm-bus:begin -->[^]*?<!-- llm-bus:end -->/g

// The block of AGENTS.md repeats the rules that the server sends: drops its lines that are elsewhere in the prompt too.
function dropRepeatedRules(system) {
  // OpenCode indents what servers send.
  const others = new Set(system.flatMap((text) => text.replace(BLOCK, "").split("\n").map((line) => line.trim())))
  const isNew = (line) => line.length < 20 || !others.has(line.trim())
  system.forEach((text, index) => {
    system[index] = text.replace(BLOCK, (block) => block.split("\n").filter(isNew).join("\n"))
  })
}

function start(folder, words, options) {
  const env = { ...process.env, CLAUDE_PROJECT_DIR: "" }
  return spawn(PYTHON, ["-ISc", LAUNCHER, ...words], { cwd: folder, env, windowsHide: true, ...options })
}

function run(folder, words, input) {
  return new Promise((resolve) => {
    let timer
    const finish = (text) => {
      clearTimeout(timer)
      try {
        resolve(JSON.parse(text) ?? {})
      } catch {
        resolve({})
      }
    }
    try {
      const kit = start(folder, words, { stdio: ["pipe", "pipe", "ignore"] })
      timer = setTimeout(() => {
        kit.kill()
        finish("")
      }, LIMIT_MILLISECONDS)
      let output = ""
      kit.stdout.on("data", (data) => (output += data))
      kit.on("error", () => finish(""))
      kit.on("close", () => finish(output))
      kit.stdin.on("error", () => {})
      kit.stdin.end(JSON.stringify({ cwd: folder, ...input }))
    } catch {
      finish("")
    }
  })
}

export const LLMBus = async ({ client, directory }) => {
  // Of each session its agent and model, so that a reminder changes neither; null for that of a subagent.
  const sessions = new Map()
  const parents = new Map()
  const greetings = new Map()
  const lookedAt = new Map()
  const checked = new Set()
  // The session of a subagent belongs to the one that its user sees.
  const name = (sessionID) => {
    let root = sessionID
    while (parents.has(root)) root = parents.get(root)
    return root === sessionID ? { session_id: root } : { session_id: root, agent_id: sessionID }
  }
  const remind = async (sessionID, noReply) => {
    const session = sessions.get(sessionID)
    if (!session) return
    const { context } = await run(directory, ["wake", "stop", "opencode"], name(sessionID))
    if (!context) return
    const body = { ...session, noReply, parts: [{ type: "text", text: context, synthetic: true }] }
    await client.session.prompt({ path: { id: sessionID }, body }).catch(() => {})
  }
  process.on("exit", () => {
    for (const [sessionID, session] of sessions) {
      if (!session) continue
      try {
        const kit = start(directory, ["wake", "end", "opencode", sessionID], { stdio: "ignore", detached: true })
        kit.unref()
      } catch {}
    }
  })
  return {
    config: async (config) => {
      const server = config.mcp?.servers?.[SERVER] ?? config.mcp?.[SERVER]
      if (!server?.url) return
      const headers = await run(directory, ["headers", "opencode", server.url], {})
      server.headers = { ...server.headers, ...headers }
      // Each request has the definitions of all tools; those that the user's configuration names are left as they are.
      // Permissions have replaced the setting `tools`, which OpenCode has converted by now.
      const permission = (config.permission = config.permission ?? {})
      if (typeof permission !== "object" || `${SERVER}_*` in permission) return
      for (const tool of HIDDEN_TOOLS) permission[`${SERVER}_${tool}`] ??= "deny"
    },
    event: async ({ event }) => {
      const { info, sessionID } = event.properties ?? {}
      if (event.type === "session.created" && info?.parentID) {
        sessions.set(info.id, null)
        parents.set(info.id, info.parentID)
      }
      if (event.type === "session.deleted" && sessions.delete(info?.id)) {
        await run(directory, ["wake", "end", "opencode"], name(info.id))
      }
      if (event.type === "session.idle" && parents.has(sessionID)) {
        await run(directory, ["wake", "end", "opencode"], name(sessionID))
      } else if (event.type === "session.idle" && !checked.delete(sessionID)) await remind(sessionID, false)
    },
    "chat.message": async ({ sessionID, agent, model }) => {
      const isNew = !sessions.has(sessionID)
      if (sessions.get(sessionID) === null) return
      sessions.set(sessionID, { agent, model })
      if (!isNew) return
      lookedAt.set(sessionID, Date.now())
      const { context } = await run(directory, ["wake", "start", "opencode"], name(sessionID))
      if (context) greetings.set(sessionID, context)
    },
    "experimental.chat.system.transform": async ({ sessionID }, { system }) => {
      dropRepeatedRules(system)
      if (greetings.has(sessionID)) system.push(greetings.get(sessionID))
    },
    // The turn is about to end, or to continue with tools: a message that is there by then is answered in it.
    "experimental.text.complete": async ({ sessionID }) => {
      checked.add(sessionID)
      await remind(sessionID, true)
    },
    "tool.execute.before": async ({ tool, sessionID }, { args }) => {
      // All sessions share one connection, so each call of the bus says which session it is of.
      if (tool.startsWith(`${SERVER}_`)) args._session = Object.values(name(sessionID)).join("/")
      if (!EDIT_TOOLS.includes(tool)) return
      const call = { ...name(sessionID), tool_name: tool, tool_input: args }
      const { refusal } = await run(directory, ["tool", "before", "opencode"], call)
      if (refusal) throw new Error(refusal)
    },
    "tool.execute.after": async ({ tool, sessionID, args }, result) => {
      const isDue = !parents.has(sessionID) && Date.now() - (lookedAt.get(sessionID) ?? 0) >= LOOK_MILLISECONDS
      if (isDue) lookedAt.set(sessionID, Date.now())
      if (!isDue && !EDIT_TOOLS.includes(tool)) return
      const call = { ...name(sessionID), tool_name: tool, tool_input: isDue && !EDIT_TOOLS.includes(tool) ? {} : args }
      const { context } = await run(directory, ["tool", "after", "opencode"], call)
      if (context) result.output = `${result.output}\n\n${context}`
    },
  }
}
