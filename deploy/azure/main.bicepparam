using './main.bicep'

param accountName = 'imaginglake'
param principalId = readEnvironmentVariable('DICOM_ASSETS_PRINCIPAL_ID')
