// Copy buttons, and the try-it page's answer as it comes. Everything else works without script.
"use strict";

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const said = button.textContent;
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = said; }, 2000);
  });
}

const form = document.getElementById("try");
if (form) {
  const element = (name) => document.getElementById(name);
  const output = element("output"), status = element("status");
  const show = (name, value) => { element(name).textContent = value; };
  const seconds = (from) => `${((performance.now() - from) / 1000).toFixed(2)} s`;
  let running = null;

  element("stream-choice").hidden = false;
  element("result").hidden = false;
  element("stop").addEventListener("click", () => running && running.abort());

  // Server-sent events (WHATWG HTML, section 9.2), as far as chat completions use them: one data line per event.
  async function readEvents(answer, started) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", usage = null, first = false, failure = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { usage, failure };
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        const data = line.startsWith("data:") ? line.slice(5).trim() : "";
        if (!data || data === "[DONE]") continue;
        const event = JSON.parse(data);
        if (event.error) failure = JSON.stringify(event, null, 2);
        if (event.usage) usage = event.usage;
        const delta = event.choices && event.choices[0] && event.choices[0].delta;
        const text = delta && (delta.content || delta.reasoning_content || delta.reasoning);
        if (text) {
          if (!first) { first = true; show("ttft", seconds(started)); }
          output.append(text);
        }
      }
    }
  }

  async function readWhole(answer) {
    const text = await answer.text();
    let data = null;
    try { data = JSON.parse(text); } catch { return { usage: null, failure: text }; }
    if (!answer.ok) return { usage: null, failure: JSON.stringify(data, null, 2) };
    output.append((data.choices && data.choices[0] && data.choices[0].message.content) || "");
    return { usage: data.usage, failure: "" };
  }

  function showUsage(usage) {
    if (!usage) return;
    const cached = usage.prompt_tokens_details && usage.prompt_tokens_details.cached_tokens;
    show("prompt-tokens", usage.prompt_tokens + (cached ? ` (${cached} cached)` : ""));
    show("completion-tokens", usage.completion_tokens);
  }

  async function send() {
    const started = performance.now();
    running = new AbortController();
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { "x-requested-with": "fetch" },
      redirect: "error",
      signal: running.signal,
    });
    const events = (answer.headers.get("content-type") || "").startsWith("text/event-stream");
    const { usage, failure } = await (events ? readEvents(answer, started) : readWhole(answer));
    show("latency", seconds(started));
    showUsage(usage);
    if (failure) output.append(failure);
    status.textContent = failure ? `Failed with status ${answer.status}` : "Done";
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    output.textContent = "";
    for (const name of ["latency", "ttft", "prompt-tokens", "completion-tokens"]) show(name, "–");
    status.textContent = "Waiting for the gateway …";
    element("send").disabled = true;
    element("stop").hidden = false;
    try {
      await send();
    } catch (error) {
      status.textContent = error.name === "AbortError" ? "Stopped" : `The answer broke off: ${error.message}`;
    } finally {
      running = null;
      element("send").disabled = false;
      element("stop").hidden = true;
    }
  });
}
