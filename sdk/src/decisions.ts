/** The calls of a client that the relay has not decided yet. */
import { SyncClientError, SyncErrorType } from './errors';
import type { FrameType, Role } from './protocol';

/** How long the relay may take to decide, ms. */
export const DECISION_MS = 10_000;

/** How long it may take if a person has to decide: what the relay allows, and the way there and back, ms. */
export const ASK_MS = 35_000;

/** A call that the relay decides on. */
export type Call =
  | 'pullStateFromPeer'
  | 'pushStateToPeer'
  | 'requestControl'
  | 'acceptControlTransfer'
  | 'releaseControl'
  /** Nobody's call: the role of before, after a connection was lost. */
  | 'reconnect';

/** What is to be decided. */
export interface Question {
  call: Call;
  /** The role that the caller wants. */
  wants: 'active' | 'passive';
  /** The frame that asks for it. */
  type: FrameType;
  data: Record<string, unknown>;
  /** How long the answer may take, ms. */
  patience: number;
  /** Whether a refusal is an event, too: whoever calls may not wait for the promise. */
  announced: boolean;
}

/** A call that is being decided. */
export interface Decision extends Question {
  promise: Promise<void>;
  settle(error?: SyncClientError): void;
}

/** The calls that are being decided, at most one of each kind. */
export class Decisions {
  private readonly _open = new Map<Call, Decision>();

  constructor(private readonly _failed: (error: SyncClientError) => void) {}

  /** Notes a question. One of a call that is being decided already is asked again, and settles with it. */
  add(question: Question): Promise<void> {
    const same = this._open.get(question.call);
    if (same) {
      Object.assign(same, question);
      return same.promise;
    }
    const decision = this._decide(question);
    this._open.set(question.call, decision);
    if (question.announced) decision.promise.catch((error: SyncClientError) => this._failed(error));
    return decision.promise;
  }

  has(call: Call): boolean {
    return this._open.has(call);
  }

  /** Whether the role is being asked for. */
  wants(role: 'active' | 'passive'): boolean {
    return this.all().some((decision) => decision.wants === role);
  }

  all(): Decision[] {
    return [...this._open.values()];
  }

  /** The client has this role now: what wanted it is done. */
  reached(role: Role): void {
    for (const decision of this.all()) if (decision.wants === role) decision.settle();
  }

  /** What these calls wanted will not come. */
  refuse(which: (decision: Decision) => boolean, error: SyncClientError): boolean {
    const refused = this.all().filter(which);
    for (const decision of refused) decision.settle(error);
    return refused.length > 0;
  }

  private _decide(question: Question): Decision {
    let settle!: Decision['settle'];
    const promise = new Promise<void>((resolve, reject) => {
      const late = `the relay has not decided on ${question.call}() in ${question.patience} ms`;
      const timer = setTimeout(() => settle(new SyncClientError(SyncErrorType.TIMEOUT, late)), question.patience);
      settle = (error) => {
        clearTimeout(timer);
        this._open.delete(question.call);
        if (error) reject(error);
        else resolve();
      };
    });
    return { ...question, promise, settle };
  }
}
