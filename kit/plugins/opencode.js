// Starts the kit of LLM Bus inside .git, which decides everything. Where it is missing or fails, nothing happens.
import { spawn } from "node:child_process"

const LAUNCHER = __LAUNCHER__
const PYTHON = process.platform === "win32" ? "python" : "python3"
const LIMIT_MILLISECONDS = 8000
const EDIT_TOOLS = ["edit", "write", "multiedit", "patch", "apply_patch"]

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
      const kit = spawn(PYTHON, ["-I", "-c", LAUNCHER, ...words, "opencode"], {
        cwd: folder,
        env: { ...process.env, CLAUDE_PROJECT_DIR: "" },
        stdio: ["pipe", "pipe", "ignore"],
        windowsHide: true,
      })
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
  const checked = new Set()
  const remind = async (sessionID, noReply) => {
    const session = sessions.get(sessionID)
    if (!session) return
    const { context } = await run(directory, ["wake", "stop"], { session_id: sessionID })
    if (!context) return
    const body = { ...session, noReply, parts: [{ type: "text", text: context, synthetic: true }] }
    await client.session.prompt({ path: { id: sessionID }, body }).catch(() => {})
  }
  return {
    event: async ({ event }) => {
      if (event.type === "session.created" && event.properties.info?.parentID) {
        sessions.set(event.properties.info.id, null)
      }
      if (event.type !== "session.idle") return
      const { sessionID } = event.properties
      if (!checked.delete(sessionID)) await remind(sessionID, false)
    },
    "chat.message": async ({ sessionID, agent, model }, { parts }) => {
      const isNew = !sessions.has(sessionID)
      if (sessions.get(sessionID) === null) return
      sessions.set(sessionID, { agent, model })
      const last = parts[parts.length - 1]
      if (!isNew || !last) return
      const { context } = await run(directory, ["wake", "start"], { session_id: sessionID })
      if (!context) return
      const { messageID } = last
      parts.push({ id: `${last.id}0`, sessionID, messageID, type: "text", text: context, synthetic: true })
    },
    // The turn is about to end, or to continue with tools: a message that is there by then is answered in it.
    "experimental.text.complete": async ({ sessionID }) => {
      checked.add(sessionID)
      await remind(sessionID, true)
    },
    "tool.execute.before": async ({ tool, sessionID }, { args }) => {
      if (!EDIT_TOOLS.includes(tool)) return
      const call = { session_id: sessionID, tool_name: tool, tool_input: args }
      const { refusal } = await run(directory, ["tool", "before"], call)
      if (refusal) throw new Error(refusal)
    },
    "tool.execute.after": async ({ tool, sessionID, args }, result) => {
      if (!EDIT_TOOLS.includes(tool)) return
      const call = { session_id: sessionID, tool_name: tool, tool_input: args }
      const { context } = await run(directory, ["tool", "after"], call)
      if (context) result.output = `${result.output}\n\n${context}`
    },
  }
}
