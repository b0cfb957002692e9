// The openai package, unmodified.

import OpenAI from 'openai';
import { zodFunction, zodTextFormat } from 'openai/helpers/zod';
import { ResponsesWS } from 'openai/resources/responses/ws';
import { z } from 'zod';
import { given, hearingFetch, play } from './scenario.mjs';

const client = new OpenAI({
  baseURL: `${given.url}/compatible-mode/v1`,
  apiKey: 'any',
  fetch: hearingFetch,
});
const model = 'any_name';

const clock = {
  type: 'function',
  name: 'clock',
  description: 'The time.',
  parameters: {
    type: 'object',
    properties: { zone: { type: 'string' } },
    required: ['zone'],
    additionalProperties: false,
  },
  strict: true,
};

async function errorOf(promise) {
  try {
    await promise;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code, param: error.param, type: error.type };
  }
  return null;
}

await play({
  async create({ input }) {
    const response = await client.responses.create({ model, input });
    return {
      text: response.output_text,
      step7: response.response.output[0].content[0].text,
      kinds: response.output.map((item) => item.type),
    };
  },

  async stream({ input }) {
    const stream = await client.responses.create({ model, input, stream: true });
    const events = [];
    for await (const event of stream) events.push(event);
    const deltas = events.filter((event) => event.type === 'response.output_text.delta');
    return {
      text: deltas.map((event) => event.delta).join(''),
      numbers: events.map((event) => event.sequence_number),
      kinds: events.map((event) => event.type),
      output: events.at(-1).response.output,
    };
  },

  async helper({ input }) {
    const stream = client.responses.stream({ model, input });
    const deltas = [];
    stream.on('response.output_text.delta', (event) => deltas.push(event.delta));
    const final = await stream.finalResponse();
    return { text: final.output_text, deltas, kinds: final.output.map((item) => item.type) };
  },

  async parse({ input }) {
    const format = zodTextFormat(z.object({ city: z.string() }), 'capital');
    const response = await client.responses.parse({ model, input, text: { format } });
    const streamed = await client.responses.stream({ model, input, text: { format } }).finalResponse();
    return { parsed: response.output_parsed, streamed: streamed.output_parsed };
  },

  async tools({ input }) {
    const first = await client.responses.create({ model, input, tools: [clock] });
    const call = first.output.find((item) => item.type === 'function_call');
    const second = await client.responses.create({
      model,
      previous_response_id: first.id,
      input: [{ type: 'function_call_output', call_id: call.call_id, output: 'noon' }],
      tools: [clock],
    });
    return { status: first.status, arguments: call.arguments, text: second.output_text };
  },

  async stateless({ input }) {
    const items = [{ role: 'user', content: input }];
    const first = await client.responses.create({ model, input: items, tools: [clock], store: false });
    items.push(...first.output);
    for (const item of first.output) {
      if (item.type === 'function_call') {
        items.push({ type: 'function_call_output', call_id: item.call_id, output: 'noon' });
      }
    }
    const second = await client.responses.create({ model, input: items, tools: [clock], store: false });
    return { text: second.output_text };
  },

  async continued() {
    const first = await client.responses.create({ model, input: 'one' });
    const left = await client.responses.create({ model, input: 'left', previous_response_id: first.id });
    const right = await client.responses.create({ model, input: 'right', previous_response_id: first.id });
    const conversation = await client.conversations.create();
    await client.responses.create({ model, input: 'three', conversation: conversation.id });
    const four = await client.responses.create({ model, input: 'four', conversation: conversation.id });
    const items = [];
    for await (const item of client.conversations.items.list(conversation.id, { order: 'asc' })) items.push(item.type);
    return { texts: [left, right, four].map((response) => response.output_text), items };
  },

  async kept({ input }) {
    const made = await client.responses.create({ model, input });
    const found = await client.responses.retrieve(made.id);
    const replay = [];
    for await (const event of await client.responses.retrieve(made.id, { stream: true, starting_after: 2 })) {
      replay.push(event.sequence_number);
    }
    const helped = [];
    const helper = client.responses.stream({ response_id: made.id, starting_after: 2 });
    for await (const event of helper) helped.push(event.sequence_number);
    const items = [];
    for await (const item of client.responses.inputItems.list(made.id)) items.push(item.content[0].text);
    await client.responses.delete(made.id);
    const gone = await errorOf(client.responses.retrieve(made.id));
    return { same: found.output_text === made.output_text, replay, helped, items, gone };
  },

  async background({ input }) {
    const made = await client.responses.create({ model, input, background: true });
    for await (const event of await client.responses.retrieve(made.id, { stream: true }));
    const done = await client.responses.retrieve(made.id);
    const cancelled = await client.responses.cancel(made.id);
    return { first: made.status, last: done.status, text: done.output_text, cancelled: cancelled.status };
  },

  async dropped({ input }) {
    const stream = await client.responses.create({ model, input, stream: true, background: true });
    const seen = [];
    let id;
    for await (const event of stream) {
      seen.push(event.sequence_number);
      id ??= event.response.id;
      if (event.type === 'response.output_text.delta') break; // which aborts the request
    }
    let text;
    for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: seen.at(-1) })) {
      seen.push(event.sequence_number);
      if (event.type === 'response.completed') text = event.response.output[0].content[0].text;
    }
    return { numbers: seen, text };
  },

  async socket() {
    const socket = new ResponsesWS(client);
    const told = { texts: [], numbers: [], error: null };
    const ask = (fields) => socket.send({ type: 'response.create', model, ...fields });
    ask({ input: 'one' });
    for await (const { type, message, error } of socket) {
      if (type === 'error') {
        told.error = error.error.error.param;
        socket.close();
      }
      if (type !== 'message') continue;
      if (told.texts.length === 0) told.numbers.push(message.sequence_number);
      if (message.type !== 'response.completed') continue;
      told.texts.push(message.response.output[0].content[0].text);
      if (told.texts.length === 1) ask({ input: 'two', previous_response_id: message.response.id });
      else ask({ input: 'three', temperature: 9 });
    }
    return told;
  },

  async errors() {
    return {
      bad: await errorOf(client.responses.create({ model, input: 'x', temperature: 9 })),
      unknown: await errorOf(client.responses.create({ model, input: 'x', previous_response_id: 'resp_no' })),
      model: await errorOf(client.models.retrieve('nobody')),
      route: await errorOf(client.embeddings.create({ model, input: 'x' })),
    };
  },

  async failing({ input }) {
    const response = await client.responses.create({ model, input });
    const stream = await client.responses.create({ model, input, stream: true });
    const kinds = [];
    for await (const event of stream) kinds.push(event.type);
    return { status: response.status, code: response.error.code, last: kinds.at(-1) };
  },

  async chat({ input }) {
    const messages = [{ role: 'user', content: input }];
    const whole = await client.chat.completions.create({ model, messages });
    const stream = await client.chat.completions.create({
      model,
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    let usage;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? '';
      usage = chunk.usage ?? usage;
    }
    return { whole: whole.choices[0].message.content, text, tokens: usage?.total_tokens };
  },

  async chatTools({ input }) {
    const runner = client.chat.completions.runTools({
      model,
      messages: [{ role: 'user', content: input }],
      tools: [
        zodFunction({
          name: 'clock',
          parameters: z.object({ zone: z.string() }),
          function: ({ zone }) => `noon in ${zone}`,
        }),
      ],
    });
    return { text: await runner.finalContent() };
  },
});
