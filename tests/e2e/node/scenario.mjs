// What the scripts share. A script gets {url, scenario, …} as JSON, and prints {result, wire} as JSON: what its
// scenario returned, and all that the client was answered, for the test to check.

export const given = JSON.parse(process.argv[2]);

const heard = [];

/** `fetch` that keeps what comes back. */
export async function hearingFetch(input, init) {
  const response = await fetch(input, init);
  const url = new URL(typeof input === 'string' || input instanceof URL ? input : input.url);
  const answer = {
    method: init?.method ?? 'GET',
    path: url.pathname,
    query: Object.fromEntries(url.searchParams),
    status: response.status,
    content_type: response.headers.get('content-type') ?? '',
  };
  if (!response.body) {
    heard.push(Promise.resolve({ ...answer, body: '' }));
    return response;
  }
  const [mine, theirs] = response.body.tee();
  heard.push(textOf(mine).then((body) => ({ ...answer, body })));
  return new Response(theirs, {
    status: response.status,
    statusText: response.statusText,
    headers: response.headers,
  });
}

/** All of it, or what there was when the client hung up. */
async function textOf(stream) {
  const decoder = new TextDecoder();
  let text = '';
  try {
    for await (const piece of stream) text += decoder.decode(piece, { stream: true });
  } catch (error) {
    if (error.name !== 'AbortError') throw error;
  }
  return text;
}

/** Run the scenario that was asked for. */
export async function play(scenarios) {
  const result = await scenarios[given.scenario](given);
  const wire = await Promise.all(heard);
  process.stdout.write(JSON.stringify({ result, wire }));
}
