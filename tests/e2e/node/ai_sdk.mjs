// The Vercel AI SDK with its OpenAI provider, unmodified.

import { createOpenAI } from '@ai-sdk/openai';
import net from 'node:net';
import { generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';
import { given, hearingFetch, play } from './scenario.mjs';

const openai = createOpenAI({
  baseURL: `${given.url}/compatible-mode/v1`,
  apiKey: 'any',
  fetch: hearingFetch,
});
const name = given.model ?? 'any_name';
const model = given.chat ? openai.chat(name) : openai.responses(name);

if (given.quiet) globalThis.AI_SDK_LOG_WARNINGS = false;

const tools = {
  clock: tool({
    description: 'The time.',
    inputSchema: z.object({ zone: z.string() }),
    execute: async ({ zone }) => `noon in ${zone}`,
  }),
};
const stopWhen = stepCountIs(5);

function throwIt({ error }) {
  throw error;
}

/** The parts of a stream, and what it comes to. */
async function told(stream) {
  const parts = [];
  for await (const part of stream.fullStream) {
    if (part.type === 'error') throw part.error;
    parts.push(part);
  }
  return {
    text: await stream.text,
    kinds: parts.map((part) => part.type),
    reasoning: await stream.reasoningText,
    finish: await stream.finishReason,
    tokens: (await stream.totalUsage).totalTokens,
    steps: (await stream.steps).length,
  };
}

await play({
  async generate({ prompt }) {
    const result = await generateText({ model, prompt });
    return {
      text: result.text,
      finish: result.finishReason,
      tokens: result.usage.totalTokens,
      reasoning: result.reasoningText,
      warnings: result.warnings ?? [],
      calls: result.toolCalls.map((call) => ({ name: call.toolName, ours: call.providerExecuted ?? false })),
      results: result.toolResults.map((told) => told.output),
    };
  },

  async stream({ prompt }) {
    return told(streamText({ model, prompt, onError: throwIt }));
  },

  async tools({ prompt }) {
    const result = await generateText({ model, prompt, tools, stopWhen });
    return { text: result.text, steps: result.steps.length, calls: result.steps[0].toolCalls.map((call) => call.input) };
  },

  async toolsStreamed({ prompt }) {
    return told(streamText({ model, prompt, tools, stopWhen, onError: throwIt }));
  },

  async toolsStateless({ prompt }) {
    const providerOptions = { openai: { store: false } };
    const result = await generateText({ model, prompt, tools, stopWhen, providerOptions });
    return { text: result.text };
  },

  async structured({ prompt }) {
    const output = Output.object({ schema: z.object({ city: z.string() }) });
    const whole = await generateText({ model, prompt, output });
    const stream = streamText({ model, prompt, output, onError: throwIt });
    const partial = [];
    for await (const part of stream.partialOutputStream) partial.push(part);
    return { whole: whole.output, last: partial.at(-1) };
  },

  async dialogue({ prompts, store = true }) {
    const messages = [];
    const texts = [];
    const warnings = [];
    for (const content of prompts) {
      messages.push({ role: 'user', content });
      const result = await generateText({ model, messages, tools, stopWhen, system: 'Be brief.', providerOptions: { openai: { store } } });
      messages.push(...result.response.messages);
      texts.push(result.text);
      warnings.push(...(result.warnings ?? []).map((warning) => warning.message ?? ''));
    }
    return { texts, warnings };
  },

  async page({ prompt }) {
    const stream = streamText({ model, prompt, tools, stopWhen, onError: throwIt });
    const chunks = [];
    for await (const chunk of stream.toUIMessageStream({ sendReasoning: true })) chunks.push(chunk);
    const text = chunks.filter((chunk) => chunk.type === 'text-delta').map((chunk) => chunk.delta).join('');
    return { text, kinds: [...new Set(chunks.map((chunk) => chunk.type))] };
  },

  async continued({ prompts }) {
    const texts = [];
    let previousResponseId;
    for (const prompt of prompts) {
      const providerOptions = previousResponseId ? { openai: { previousResponseId } } : {};
      const result = await generateText({ model, prompt, providerOptions });
      previousResponseId = result.providerMetadata.openai.responseId;
      texts.push(result.text);
    }
    return { texts };
  },

  async conversation({ prompts, id }) {
    const texts = [];
    for (const prompt of prompts) {
      const result = await generateText({ model, prompt, providerOptions: { openai: { conversation: id } } });
      texts.push(result.text);
    }
    return { texts };
  },

  async settings({ prompt }) {
    const result = await generateText({
      model,
      prompt,
      temperature: 0.5,
      topP: 0.5,
      maxOutputTokens: 64,
      tools,
      toolChoice: 'none',
      providerOptions: {
        openai: { parallelToolCalls: false, metadata: { order: '4711' }, instructions: 'Be brief.', user: 'ada' },
      },
    });
    return { text: result.text, finish: result.finishReason };
  },

  /** Gives up its first request once the handler runs, as Node's fetch does after five minutes; then knocks at the door. */
  async impatient({ prompt, door }) {
    let asked = 0;
    const losing = async (input, init) => {
      asked += 1;
      if (asked > 1) return hearingFetch(input, init);
      const giveUp = new AbortController();
      const lost = fetch(input, { ...init, signal: giveUp.signal }).catch(() => {});
      const runs = new URL(`${given.url}/runs?${new URLSearchParams({ text: prompt })}`);
      while ((await (await fetch(runs)).json()).runs < 1);
      giveUp.abort();
      await lost;
      const [host, port] = door.split(':');
      net.connect(Number(port), host).resume();
      throw new TypeError('fetch failed', { cause: new Error('Headers Timeout Error') });
    };
    const provider = createOpenAI({ baseURL: `${given.url}/compatible-mode/v1`, apiKey: 'any', fetch: losing });
    const result = await generateText({ model: given.chat ? provider.chat(name) : provider.responses(name), prompt });
    return { text: result.text, asked };
  },

  async failing({ prompt }) {
    const seen = {};
    try {
      await generateText({ model, prompt });
    } catch (error) {
      seen.generate = error.message;
    }
    const stream = streamText({ model, prompt, onError: () => {} });
    for await (const part of stream.fullStream) {
      if (part.type === 'error') seen.stream = String(part.error?.message ?? JSON.stringify(part.error));
      if (part.type === 'finish') seen.finish = part.finishReason;
    }
    return seen;
  },
});
