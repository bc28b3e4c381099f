// What dicom-assets needs on Azure: a storage account with a container for what arrives, one to be emptied, one for the
// lake and one for logs, a queue that new blobs are announced in, and the rights of the identity that it runs as.
//   az deployment group create -g GROUP -f deploy/azure/main.bicep -p deploy/azure/main.bicepparam

@description('Name of the storage account: 3 to 24 lower-case letters and digits, unique in the world.')
@minLength(3)
@maxLength(24)
param accountName string

@description('Object id of the managed identity or service principal that dicom-assets runs as.')
param principalId string

@description('Where everything is made.')
param location string = resourceGroup().location

@description('Whether the account gets a hierarchical namespace (ADLS Gen2).')
param hierarchical bool = true

@description('How many copies the account keeps, and where: docs/backup.md.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_RAGRS'
  'Standard_GZRS'
  'Standard_RAGZRS'
])
param storageSku string = 'Standard_ZRS'

@description('Days that deleted blobs can be brought back.')
@minValue(1)
@maxValue(365)
param softDeleteDays int = 14

@description('Name of the queue; it gets a poison queue beside it.')
param queueName string = 'incoming'

var containers = ['incoming', 'drop', 'lake', 'logs']

// Built-in roles by their ids, the same in every tenant.
var roles = {
  blobDataReader: '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1'
  blobDataContributor: 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
  queueDataContributor: '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
  queueDataMessageSender: 'c6a89b2d-59bc-44d0-9896-0f6e12d7b80a'
}

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: accountName
  location: location
  kind: 'StorageV2'
  sku: {
    name: storageSku
  }
  properties: {
    isHnsEnabled: hierarchical
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    allowBlobPublicAccess: false
    // Everybody signs in with Entra ID; there are no keys to lose.
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
  }
}

resource blobService 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: account
  name: 'default'
  properties: {
    deleteRetentionPolicy: {
      enabled: true
      days: softDeleteDays
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: softDeleteDays
    }
  }
}

resource container 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = [
  for name in containers: {
    parent: blobService
    name: name
  }
]

resource queueService 'Microsoft.Storage/storageAccounts/queueServices@2023-05-01' = {
  parent: account
  name: 'default'
}

resource queue 'Microsoft.Storage/storageAccounts/queueServices/queues@2023-05-01' = {
  parent: queueService
  name: queueName
}

resource poisonQueue 'Microsoft.Storage/storageAccounts/queueServices/queues@2023-05-01' = {
  parent: queueService
  name: '${queueName}-poison'
}

resource topic 'Microsoft.EventGrid/systemTopics@2022-06-15' = {
  name: '${accountName}-blobs'
  location: location
  identity: {
    type: 'SystemAssigned'
  }
  properties: {
    source: account.id
    topicType: 'Microsoft.Storage.StorageAccounts'
  }
}

// Event Grid itself puts the messages into the queue, as its own identity, since the account takes no keys.
resource topicMaySend 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: account
  name: guid(account.id, topic.id, roles.queueDataMessageSender)
  properties: {
    principalId: topic.identity.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.queueDataMessageSender)
  }
}

resource subscription 'Microsoft.EventGrid/systemTopics/eventSubscriptions@2022-06-15' = {
  parent: topic
  name: 'incoming-blobs'
  dependsOn: [
    topicMaySend
  ]
  properties: {
    eventDeliverySchema: 'EventGridSchema'
    deliveryWithResourceIdentity: {
      identity: {
        type: 'SystemAssigned'
      }
      destination: {
        endpointType: 'StorageQueue'
        properties: {
          resourceId: account.id
          queueName: queue.name
          // As long as an event lives in the queue; what it misses is found by the listing now and then.
          queueMessageTimeToLiveInSeconds: 604800
        }
      }
    }
    filter: {
      includedEventTypes: [
        'Microsoft.Storage.BlobCreated'
      ]
      subjectBeginsWith: '/blobServices/default/containers/incoming/'
      advancedFilters: [
        {
          // CreateFile, which comes first on hierarchical accounts, announces a file that is not written yet.
          operatorType: 'StringIn'
          key: 'data.api'
          values: [
            'PutBlob'
            'PutBlockList'
            'CopyBlob'
            'FlushWithClose'
            'SftpCommit'
          ]
        }
      ]
    }
    retryPolicy: {
      maxDeliveryAttempts: 30
      eventTimeToLiveInMinutes: 1440
    }
  }
}

// What arrives is only read; the drop folder is emptied, the lake and the logs are written.
resource mayRead 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: container[0]
  name: guid(container[0].id, principalId, roles.blobDataReader)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.blobDataReader)
  }
}

resource mayWrite 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for index in range(1, length(containers) - 1): {
    scope: container[index]
    name: guid(container[index].id, principalId, roles.blobDataContributor)
    properties: {
      principalId: principalId
      principalType: 'ServicePrincipal'
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.blobDataContributor)
    }
  }
]

resource mayTakeMessages 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: queue
  name: guid(queue.id, principalId, roles.queueDataContributor)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.queueDataContributor)
  }
}

resource mayPoison 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: poisonQueue
  name: guid(poisonQueue.id, principalId, roles.queueDataContributor)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles.queueDataContributor)
  }
}

output landing string = 'az://${account.name}/incoming'
output lake string = 'az://${account.name}/lake'
output queueName string = queue.name
