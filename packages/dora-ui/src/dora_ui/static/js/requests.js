/** Requests that are answered once. */

/**
 * @param {string} method
 * @param {string[]} words
 * @param {unknown} [body]
 * @returns {Promise<any>}
 */
async function request(method, words, body) {
  const path = `api/${words.map(encodeURIComponent).join("/")}`;
  /** @type {RequestInit} */
  const options = { method };
  if (method === "POST") {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body ?? {});
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the `dora ui` process does not answer; start it again");
  }
  const text = await answer.text();
  if (!answer.ok) throw new Error(message(text) || `HTTP status ${answer.status}`);
  return JSON.parse(text);
}

/** @param {string} text */
function message(text) {
  try {
    return String(JSON.parse(text).error);
  } catch {
    return text.trim();
  }
}

/** @param {...string} words */
export const read = (...words) => request("GET", words);

/** @param {string[]} words @param {unknown} [body] */
export const change = (words, body) => request("POST", words, body);
