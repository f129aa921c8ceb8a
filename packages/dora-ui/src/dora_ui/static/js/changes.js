/** Changes of dataflows and nodes, with a confirmation where they end something. */

import { confirm, notify, report } from "./components.js";
import { change } from "./requests.js";
import { go } from "./route.js";

/** @param {string} uuid @param {string} name */
export function stopDataflow(uuid, name) {
  confirm({
    title: `Stop ${name}?`,
    text: "All nodes of this dataflow receive STOP and end. They have 10 seconds before they are killed.",
    action: "Stop dataflow",
    danger: true,
    run: () => report(change(["dataflows", uuid, "stop"]), `${name} has stopped`),
  });
}

/** @param {string} uuid @param {string} name */
export function restartDataflow(uuid, name) {
  confirm({
    title: `Restart ${name}?`,
    text: "All nodes end and start again. The dataflow gets a new id.",
    action: "Restart dataflow",
    danger: true,
    run: async () => {
      const answer = await report(change(["dataflows", uuid, "restart"]), `${name} was restarted`);
      if (answer !== undefined) go("dataflow", answer.new);
    },
  });
}

/** @param {string} uuid @param {string} name */
export async function startAgain(uuid, name) {
  const answer = await report(change(["dataflows", uuid, "start"]), `${name} was started`);
  if (answer !== undefined) go("dataflow", answer.uuid);
}

/**
 * Ask again if the node holds updates.
 * @param {string} uuid @param {string} node @param {string} verb @param {string} done
 */
async function changeNode(uuid, node, verb, done) {
  try {
    await change(["nodes", node, verb], { dataflow: uuid, hold_limit: 0 });
    notify(done);
  } catch (error) {
    const { message } = /** @type {Error} */ (error);
    if (!message.includes("holds updates")) {
      notify(message, true);
      return;
    }
    confirm({
      title: "Do it all the same?",
      text: message.split("; not changed")[0],
      action: verb === "stop" ? "Stop anyway" : "Restart anyway",
      danger: true,
      run: () => report(change(["nodes", node, verb], { dataflow: uuid, force: true }), done),
    });
  }
}

/** @param {string} uuid @param {string} node */
export function stopNode(uuid, node) {
  confirm({
    title: `Stop node ${node}?`,
    text: "The node ends and is not started again. Other nodes keep running; the inputs that it feeds close.",
    action: "Stop node",
    danger: true,
    run: () => changeNode(uuid, node, "stop", `${node} has stopped`),
  });
}

/** @param {string} uuid @param {string} node */
export function restartNode(uuid, node) {
  confirm({
    title: `Restart node ${node}?`,
    text: "The process of the node ends and starts again. Its state is lost unless the node saves it.",
    action: "Restart node",
    danger: true,
    run: () => changeNode(uuid, node, "restart", `${node} was restarted`),
  });
}

/** @param {string} uuid @param {string} name */
export function record(uuid, name) {
  report(change(["dataflows", uuid, "record"]), `${name} is being recorded; see Recordings`);
}
